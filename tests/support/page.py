"""The page that tests/browser leave open behind them: it draws on, on half a processor."""

import pytest

OPEN_PAGE = pytest.StashKey()
