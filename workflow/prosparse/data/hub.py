"""Data sets of the Hugging Face hub: resolve the commit, and stream a shard's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prosparse.experiment.data import HubSource, is_local
from prosparse.system.errors import ConfigError, UserError


def commit(source: HubSource, where: str) -> str | None:
    """Return the commit that ``revision`` (default: ``main``) points to now, or None if ``hub`` is a local directory.

    Args:
        where: config key of the source, for error messages.

    Raises:
        ConfigError: the data set or revision does not exist or is not accessible.
        UserError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # slow to import, and only this source needs it

    if is_local(source.hub):
        return None
    with explained(source, where):
        HfApi().auth_check(source.hub, repo_type="dataset")  # dataset_info succeeds for a gated data set without access
        return HfApi().dataset_info(source.hub, revision=source.revision).sha


def rows(source: HubSource, commit: str | None, shard: int, shards: int, where: str) -> Iterator[Mapping[str, Any]]:
    """Yield a shard's rows as they are downloaded.

    A shard consists of whole files or, if the data set has fewer files than shards, of whole row groups of Parquet
    files. Shards are disjoint, and in order they make up the data set.

    Raises:
        ConfigError: the configuration, split or file does not exist, or there are fewer pieces than shards.
    """
    from datasets import load_dataset

    files = {source.split: source.files} if source.files else None
    with explained(source, where):
        data = load_dataset(
            source.hub, source.name, data_files=files, split=source.split, revision=commit, streaming=True
        )
        if data.num_shards < shards:
            data = data.reshard()
        if data.num_shards < shards:
            key = where.removesuffix(".source")
            raise ConfigError(f"{key}.shards is {shards}: {source.hub} has {data.num_shards} files or row groups")
        yield from data.shard(shards, shard)


@contextmanager
def explained(source: HubSource, where: str) -> Iterator[None]:
    """Turn the hub libraries' exceptions into one line that names the config key."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except UserError:
        raise
    except GatedRepoError:
        terms = source.gated or f"https://huggingface.co/datasets/{source.hub}"
        raise ConfigError(
            f"{where}.hub: {source.hub} is gated: accept its terms at {terms} and set HF_TOKEN to an access token "
            "of the account that did"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{where}.hub: the hub has no data set {source.hub}, or it is private and needs a token in HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(f"{where}.revision: {source.hub} has no revision {source.revision!r}") from None
    except (DataFilesNotFoundError, DatasetNotFoundError, FileNotFoundError) as error:
        key = f"files: {', '.join(source.files)}" if source.files else "hub"
        raise ConfigError(f"{where}.{key}: {_line(error)}") from None
    except ValueError as error:
        key = next((key for sign, key in (("split", "split"), ("BuilderConfig", "name")) if sign in str(error)), "hub")
        raise ConfigError(f"{where}.{key}: {_line(error)}") from None
    except (HTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError(f"{where}.hub: the hub cannot be queried for {source.hub}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
