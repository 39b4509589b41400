// What runs have told of pictures: suggestions, small copies and results, by the picture's id. It is read from what the
// server sends and from its own record of runs, so that it is found again wherever a picture is shown: in another tab,
// after a reload, in a copy, in a subgraph.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { executionIds } from "./graph.js";

const RUNS = 24; // of the server's record that are read when the page opens
const PICTURES = 1000;
const RESULTS = 24; // per picture
const RUNNING = 16; // whose end may still be to come
const TUNER = "PiDKitSigmaTuner";
const SWEEP = "PiDKitSigmaSweep";

const pictures = new Map(); // id -> { suggestion, thumbnail, large }
const results = new Map(); // id -> [{ key, sigma, seed, steps, sweep, file, workflow }], newest first
const swept = new Map(); // place -> what that sweep or touch-up last showed
const undelivered = new Map(); // place -> the pictures that a tuner found and has not taken yet
const running = new Map(); // prompt id -> { outputs, prompt, workflow, fresh }
const listeners = new Set();
let recalled;

// Where a node stands, also after its tab was left and opened again: the workflow's id and the node's in the prompt.
const place = (workflow, id) => `${workflow}/${id}`;

function placesOf(node) {
  return executionIds(node).map((id) => place(app.rootGraph.id, id));
}

export function remember(found) {
  found.forEach((picture) => put(pictures, picture.id, picture, PICTURES));
}

export function pictureOf(id) {
  return pictures.get(id);
}

// Results of a picture, newest first: this workflow's before those of others, and a sweep's last in each.
export function resultsOf(id) {
  const rank = ({ workflow, sweep }) => 2 * (workflow !== app.rootGraph.id) + Boolean(sweep);
  return [...(results.get(id) ?? [])].sort((a, b) => rank(a) - rank(b));
}

// What the last run of a sweep or a touch-up showed: {pidkit_tiles, ...}, or undefined.
export function tilesOf(node) {
  return placesOf(node)
    .map((where) => swept.get(where))
    .find(Boolean);
}

// The pictures a tuner found in a run, once: a run may end while another tab is open.
export function collect(node) {
  for (const where of placesOf(node)) {
    const found = undelivered.get(where);
    undelivered.delete(where);
    if (found) return found;
  }
  return undefined;
}

// Calls back whenever something new is known; returns what ends that.
export function listen(callback) {
  listeners.add(callback);
  recalled ??= recall();
  return () => listeners.delete(callback);
}

const tell = () => listeners.forEach((callback) => callback());

function put(map, key, value, most) {
  map.delete(key);
  map.set(key, value);
  if (map.size > most) map.delete(map.keys().next().value);
}

// ------------------------------------------------------------------------------------------- one run

// run: its prompt as the server runs it (subgraphs dissolved, wires as [node, output]), and what nodes put out so far.
function take({ prompt, outputs, workflow }) {
  const tuners = Object.entries(prompt).filter(([id, node]) => node.class_type === TUNER && outputs[id]?.pidkit_pictures);
  for (const [id] of tuners) {
    const found = outputs[id].pidkit_pictures;
    remember(found);
    const shown = resultAfter(prompt, outputs, id, found.length);
    if (!shown) continue;
    const { seed, steps, files } = shown;
    found.forEach((picture, i) => add(picture.id, { sigma: picture.sigma, seed, steps, file: files[i], workflow }));
  }
  for (const [id, node] of Object.entries(prompt)) {
    const output = outputs[id];
    if (!output?.pidkit_tiles) continue;
    put(swept, place(workflow, id), output, PICTURES);
    if (node.class_type !== SWEEP) continue;
    const wire = node.inputs.sigma_list;
    const picture = outputs[Array.isArray(wire) ? wire[0] : ""]?.pidkit_pictures?.[output.pidkit_picture[0] - 1];
    if (!picture) continue;
    const { steps } = node.inputs;
    // the first of them ends up as the newest
    for (const { sigma, seed, large } of [...output.pidkit_tiles].reverse())
      add(picture.id, { sigma, seed, steps, sweep: true, file: large, workflow });
  }
}

function add(id, result) {
  const { sigma, seed, steps, sweep, workflow } = result;
  const key = [sigma, seed, steps, Boolean(sweep), workflow].join();
  const others = (results.get(id) ?? []).filter((other) => other.key !== key);
  put(results, id, [{ ...result, key }, ...others].slice(0, RESULTS), PICTURES);
}

// The nearest node after the tuner that shows `count` images, and the seed and steps they were drawn with.
function resultAfter(prompt, outputs, tuner, count) {
  const waiting = [[tuner, {}]];
  const seen = new Set([tuner]);
  while (waiting.length) {
    const [current, drawn] = waiting.shift();
    for (const [id, { class_type, inputs }] of Object.entries(prompt)) {
      const fed = Object.values(inputs).some((wire) => Array.isArray(wire) && String(wire[0]) === current);
      if (!fed || seen.has(id) || class_type === TUNER || class_type === SWEEP) continue;
      seen.add(id);
      const files = outputs[id]?.images;
      if (files?.length === count) return { ...drawn, files };
      const { seed, steps } = inputs;
      waiting.push([id, drawn.seed === undefined && typeof seed === "number" ? { seed: String(seed), steps } : drawn]);
    }
  }
  return null;
}

// ------------------------------------------------------------------------------------------- from the server

async function ask(path) {
  const answer = await api.fetchApi(path);
  return answer.ok ? answer.json() : {};
}

// A prompt as the server's queue and record hold it: [number, id, prompt, extra_data, ...].
function read([, , prompt, extra]) {
  return { prompt, workflow: extra?.extra_pnginfo?.workflow?.id };
}

async function recall() {
  const history = await ask(`/history?max_items=${RUNS}`);
  for (const { prompt, outputs } of Object.values(history)) take({ ...read(prompt), outputs });
  running.forEach(({ prompt }, id) => prompt && take(running.get(id)));
  tell();
}

// What ran is known while it runs, and afterwards from the record; between the two, the next `status` brings it.
async function find(id) {
  const run = running.get(id);
  const { queue_running: now } = await ask("/queue");
  const item = now?.find((one) => one[1] === id) ?? (await ask(`/history/${id}`))[id]?.prompt;
  if (!item || run.prompt) return;
  Object.assign(run, read(item));
  heard(run);
}

function heard(run) {
  take(run);
  for (const node of run.fresh.splice(0)) {
    const found = run.outputs[node].pidkit_pictures;
    if (found) put(undelivered, place(run.workflow, node), found, PICTURES);
  }
  tell();
}

api.addEventListener("executed", ({ detail: { prompt_id: id, node, output } }) => {
  if (!output) return;
  if (!running.has(id)) put(running, id, { outputs: {}, fresh: [] }, RUNNING);
  const run = running.get(id);
  run.outputs[node] = output;
  run.fresh.push(String(node));
  if (run.prompt) heard(run);
  else find(id);
});

api.addEventListener("status", () => {
  running.forEach((run, id) => run.prompt || find(id));
});
