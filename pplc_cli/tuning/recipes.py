"""Between a configuration and the parameters of an Optuna trial, which are numbers and texts alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pplc_cli.config.sections import Config
from pplc_cli.tuning.result import CANDIDATE, Candidate
from pplc_cli.tuning.space import AUGMENTATION, Range, Space
from pplc_cli.tuning.study import Params

if TYPE_CHECKING:
    from optuna.trial import Trial


class Recipes:
    """The recipes of a space, around that of a configuration."""

    def __init__(self, config: Config, space: Space) -> None:
        self._config, self._values = config, space.others

    def own(self, candidate: Candidate) -> Params:
        """The recipe of the configuration on a candidate, as parameters; the nearest values that the space has."""
        params: Params = {CANDIDATE: candidate.name}
        for key, values in self._values.items():
            value = self.configured(key)
            if isinstance(values, Range):
                number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else values.low
                number = min(max(number, values.low), values.high)
                params[key] = int(number) if values.whole else float(number)
            else:
                params[key] = _text(value if value in values else values[0])
        return params

    def suggest(self, trial: Trial, candidates: list[Candidate]) -> tuple[Candidate, dict[str, Any]]:
        """Let a trial choose a candidate and the value of each key."""
        names = [each.name for each in candidates]
        chosen = candidates[names.index(trial.suggest_categorical(CANDIDATE, names))]
        for key, of in self._values.items():
            if not isinstance(of, Range):
                trial.suggest_categorical(key, [_text(value) for value in of])
            elif of.whole:
                trial.suggest_int(key, int(of.low), int(of.high), log=of.log)
            else:
                trial.suggest_float(key, of.low, of.high, log=of.log)
        return chosen, self.values(trial.params)

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all keys that a trial's parameters stand for."""
        found = {}
        for key, of in self._values.items():
            value = params[key]
            found[key] = value if isinstance(of, Range) else of[[_text(each) for each in of].index(value)]
        return found

    def configured(self, key: str) -> Any:
        """The configuration's own value of a key."""
        if key == AUGMENTATION:
            return "own"
        section, _, name = key.partition(".")
        return getattr(getattr(self._config, section), name)


def _text(value: Any) -> str:
    """A choice as text: a space may have lists."""
    return value if isinstance(value, str) else json.dumps(value)
