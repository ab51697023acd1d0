"""The Optuna study of a sweep: a journal in its folder, safe for several processes and machines.

Each line of the journal is one operation, appended under a lock; a process that opens the file
replays it (journal.py). Optuna is imported when a sweep begins.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpkern.lm.errors import CheckpointError, MissingPackageError, WriteError
from mlpkern.lm.model.config import SHAPE
from mlpkern.lm.search.plan import SweepPlan
from mlpkern.lm.search.space import Value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STUDY = "mlpkern"
STARTUP_TRIALS = 16  # random ones, from which TPE learns


def open_study(path: Path, plan: SweepPlan, digest: str) -> Study:
    """The study in the journal ``path``, created if there is none.

    CheckpointError if the file is not a journal, or has a study of another search space, of other
    fixed settings or of other words.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage

        from mlpkern.lm.search.journal import Journal
    except ImportError as error:
        raise MissingPackageError.of("a sweep needs", "optuna", "sweep", error) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = json.loads(json.dumps({**plan.identity(), "words": digest}))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError.of(path.parent, error) from None
    journal = Journal(path)
    try:
        storage = JournalStorage(journal)
        if any(one.study_name == STUDY for one in storage.get_all_studies()):
            study = optuna.load_study(storage=storage, study_name=STUDY)  # writes nothing
        else:
            study = optuna.create_study(
                storage=storage, study_name=STUDY, direction="minimize", load_if_exists=True
            )
        found = study.user_attrs.get("plan")
        if found is None:
            study.set_user_attr("plan", wanted)
    except CheckpointError:
        raise
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}, line {journal.line}: not the journal of a sweep: {error!r}"
        ) from None
    if found is not None and found != wanted:
        raise CheckpointError(f"{path.parent}: holds a sweep of other {_differing(found, wanted)}")
    return study


def ask_batch(study: Study, plan: SweepPlan, count: int) -> list[Trial]:
    """``count`` new trials in at most ``plan.shapes`` shapes, nearly the same number of each.

    The first trial of a shape is proposed freely; the others have its shape fixed. Where seeds are
    searched, each proposal is one trial for every seed, side by side in the list; then there are as
    many proposals as fit into ``count``, but at least one.
    """
    distributions = plan.space.distributions()
    seeds = plan.space.seeds
    proposals = max(1, count // max(1, len(seeds)))
    shape = [name for name in SHAPE if name in distributions]
    free = len(distributions) - bool(seeds)
    shapes = min(plan.shapes, proposals) if shape and len(shape) < free else 1
    trials: list[Trial] = []
    with _sampler(study, plan) as fix:

        def propose(fixed: dict[str, Any], times: int = 1) -> None:
            for _ in range(times):
                fix(fixed | ({"seed": seeds[0]} if seeds else {}))
                trials.append(study.ask(distributions))
                rest = trials[-1].params
                for seed in seeds[1:]:
                    fix({**rest, "seed": seed})
                    trials.append(study.ask(distributions))

        left = proposals
        for k in range(shapes if shape else 0):
            size = left // (shapes - k)
            propose({})
            left -= 1
            if len(shape) < free:
                first = trials[-1].params
                propose({name: first[name] for name in shape}, size - 1)
                left -= size - 1
        propose({}, left)
    return trials


def best_trial(study: Study, seeds: Sequence[Value]) -> FrozenTrial | None:
    """The finished trial with the lowest dev loss; None if none has finished.

    Where ``seeds`` are searched, that of the settings with the lowest mean over all seeds.
    """
    ranked = ranked_settings(finished_trials(study), seeds)
    return min(ranked[0], key=_loss) if ranked else None


def ranked_settings(
    trials: Sequence[FrozenTrial], seeds: Sequence[Value]
) -> list[list[FrozenTrial]]:
    """The trials that went to the end, those of the same settings but the seed together, the lowest
    mean dev loss first. Where ``seeds`` are searched, settings without a trial of each are left
    out."""
    settings: dict[tuple[Any, ...], dict[Any, FrozenTrial]] = {}
    for trial in trials:
        if trial.state.name == "COMPLETE":
            rest = {**trial.params, "seed": None} if seeds else {"number": trial.number}
            settings.setdefault(tuple(sorted(rest.items())), {})[trial.params.get("seed")] = trial
    whole = [list(found.values()) for found in settings.values() if len(found) >= len(seeds)]
    return sorted(whole, key=mean_loss)


def mean_loss(trials: Sequence[FrozenTrial]) -> float:
    """The mean of the dev losses of trials that went to the end."""
    return sum(map(_loss, trials)) / len(trials)


def _loss(trial: FrozenTrial) -> float:
    assert trial.value is not None, "of a trial that went to the end"
    return trial.value


def finished_trials(study: Study) -> list[FrozenTrial]:
    """The trials with a dev loss, in the order of their proposals."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def last_loss(trial: FrozenTrial) -> float:
    """The dev loss at the last rung of a trial."""
    return max(trial.intermediate_values.items())[1]


@contextmanager
def _sampler(study: Study, plan: SweepPlan) -> Iterator[Any]:
    """Sets TPE as the sampler; gives a function that fixes settings of the next proposals."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import PartialFixedSampler, TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # a seed for each batch, since a continued study would repeat its proposals
        tpe = TPESampler(
            seed=(plan.seed + len(study.get_trials(deepcopy=False))) % 2**32,  # the limit of numpy
            n_startup_trials=STARTUP_TRIALS * max(1, len(plan.space.seeds)),
            multivariate=True,
            constant_liar=True,  # spreads the trials of a batch
        )

        def fix(values: dict[str, Any]) -> None:
            study.sampler = PartialFixedSampler(values, tpe) if values else tpe

        yield fix


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What differs between two plans, for a message."""
    if found.get("words") != wanted["words"]:
        return "words"
    names = []
    for part in ("search", "set"):
        old, new = found.get(part, {}), wanted[part]
        names += [n for n in sorted(set(old) | set(new)) if old.get(n) != new.get(n)]
    return f"settings ({', '.join(dict.fromkeys(names))}); choose another --out"
