"""Ask the hub about the models and data sets that an experiment downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prosparse.plan.downloads import Remote
from prosparse.plan.preflight import _cached

TIMEOUT = 5.0  # seconds per request to the hub


@dataclass(frozen=True)
class Answer:
    """What the hub says about a remote: its license and access, or what is wrong with it."""

    text: str
    refuses: bool = False  # only if certain


def ask_hub(remotes: Iterable[Remote], timeout: float = TIMEOUT) -> dict[tuple[str, str], Answer] | None:
    """Return (kind, name) -> what the hub says; None if no hub answers.

    Reads only metadata. Waits little longer than ``timeout`` per request and stops at the first one without an answer.
    """
    asked = [remote for remote in remotes if remote.kind != "package"]
    if not asked:
        return None
    from huggingface_hub.constants import is_offline_mode  # slow to import, so only when needed

    if is_offline_mode():
        return None
    found = {}
    for remote in asked:
        answer = _within(timeout, lambda remote=remote: _question(remote, timeout))  # type: ignore[misc]
        if answer is None:
            return None
        found[remote.kind, remote.name] = answer
    return found


def refused_by_hub(remotes: Iterable[Remote], answers: dict[tuple[str, str], Answer] | None) -> list[str]:
    """Say which of the remotes still needed the hub refuses, one sentence each."""
    needed = [remote for remote in remotes if remote.needed]
    pairs = [(remote, (answers or {}).get((remote.kind, remote.name))) for remote in needed]
    return [
        f"{remote.key}: the {remote.kind} {remote.name}: {answer.text}"
        for remote, answer in pairs
        if answer is not None and answer.refuses and not _cached(remote)
    ]


def _within(seconds: float, question: Callable[[], Answer | None]) -> Answer | None:
    """Return the answer, or None if it takes too long: a DNS lookup has no timeout of its own."""
    answers: list[Answer | None] = []
    thread = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    thread.start()
    thread.join(2 * seconds)
    return answers[0] if answers else None


def _question(remote: Remote, timeout: float) -> Answer | None:
    """Ask the hub about one remote; None if no hub was reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, kind = HfApi(), "dataset" if remote.kind in ("data set", "benchmark") else "model"
    try:
        found = hub.repo_info(remote.name, repo_type=kind, revision=remote.revision, timeout=timeout)
        hub.auth_check(remote.name, repo_type=kind)
    except GatedRepoError:
        terms = remote.gated or f"{hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{remote.name}"
        return Answer(f"NO ACCESS: accept its terms ({terms}) and log in", refuses=True)
    except RevisionNotFoundError:
        return Answer(f"NO REVISION {remote.revision}: correct {remote.key}.revision", refuses=True)
    except RepositoryNotFoundError:
        return Answer(f"NOT FOUND, or private: correct {remote.key}", refuses=True)
    except HFValidationError:
        return Answer(f"NOT A DIRECTORY, and not a valid hub id: correct {remote.key}", refuses=True)
    except HfHubHTTPError as error:
        return Answer(f"the hub does not say: {error}".splitlines()[0])
    except (HTTPError, ConnectionError, TimeoutError):  # the request reached no hub
        return None
    except Exception as error:  # concerns only this remote: still ask about the others
        return Answer(f"the hub's answer cannot be read: {error!r}".splitlines()[0])
    card = getattr(found, "card_data", None)
    return Answer(f"access granted; license {(card.get('license') if card is not None else None) or 'not stated'}")
