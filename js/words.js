// The words of our own widgets, in the language that ComfyUI is set to.

import { app } from "../../scripts/app.js";

const ENGLISH = {
  showAdvanced: "Show advanced inputs",
  hideAdvanced: "Hide advanced inputs",
  load: "Load pictures",
  loadHint: "Show the pictures and measure them. Decodes nothing.",
  faithful: "Faithful",
  repair: "Repair",
  rebuild: "Rebuild",
  presetHint: "Set the chosen picture to {0} (key {1})",
  same: "All the same",
  sameHint: "Give every picture the value of the chosen one",
  reset: "Reset",
  resetHint: "Give every picture default_sigma again",
  empty: "No pictures yet. Connect images, then press Load pictures.",
  picture: "Picture {0}",
  choose: "Choose picture {0}, and compare it with its result",
  sigma: "degrade_sigma of picture {0}",
  suggested: "Suggested for picture {0}: {1}. Click to take it (key S).",
  untrained: "Above 0.8: PiD was never trained for it",
  before: "before",
  after: "after",
  compare: "How much of the result to show",
  noResult: "Run the workflow to see picture {0} before and after here.",
  noTiles: "Run the workflow to see the results here.",
  tileHint: "Set picture {0} to {1}",
  taken: "Picture {0} is set to {1}.",
  noTuner: "Connect PiD Sigma Tuner to sigma_list to set its value by a click.",
  notLoaded: "PiD Sigma Tuner shows no picture {0} yet: press Load pictures there.",
  seed: "seed {0}",
  pictureFailed: "Could not put {0} into ComfyUI's input folder ({1}). Choose another picture in Load Image.",
};

const CHINESE = {
  showAdvanced: "显示高级输入",
  hideAdvanced: "隐藏高级输入",
  load: "载入图像",
  loadHint: "显示图像并测量质量，不解码。",
  faithful: "忠实",
  repair: "修复",
  rebuild: "重建",
  presetHint: "把选中的图像设为 {0}（按键 {1}）",
  same: "全部相同",
  sameHint: "让所有图像使用选中图像的值",
  reset: "重置",
  resetHint: "让所有图像恢复为默认强度",
  empty: "还没有图像。请连接图像，然后点击“载入图像”。",
  picture: "图像 {0}",
  choose: "选中图像 {0}，并与结果对比",
  sigma: "图像 {0} 的降质强度",
  suggested: "图像 {0} 的建议值：{1}。点击采用（按键 S）。",
  untrained: "高于 0.8：超出 PiD 的训练范围",
  before: "之前",
  after: "之后",
  compare: "显示多少结果",
  noResult: "运行工作流后，这里会显示图像 {0} 的前后对比。",
  noTiles: "运行工作流后，这里会显示结果。",
  tileHint: "把图像 {0} 设为 {1}",
  taken: "图像 {0} 已设为 {1}。",
  noTuner: "把“PiD 强度调节器”接到 sigma_list，点击即可设置它的值。",
  notLoaded: "“PiD 强度调节器”还没有图像 {0}：请在那里点击“载入图像”。",
  seed: "种子 {0}",
  pictureFailed: "无法把 {0} 放入 ComfyUI 的 input 文件夹（{1}）。请在“加载图像”节点中选择其他图像。",
};

export function word(name, ...values) {
  const language = app.extensionManager?.setting.get("Comfy.Locale") ?? "en";
  const text = (language.startsWith("zh") ? CHINESE : ENGLISH)[name];
  return values.reduce((found, value, i) => found.replace(`{${i}}`, value), text);
}
