"""Sections ``architectures`` and ``runs.*.init``: shapes and initial weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prosparse.experiment.section import Count, Name, Section


class Architecture(Section):
    """A SwiGLU decoder.

    ``minicpm`` is a LLaMA whose embeddings, residual branches and logits are scaled by
    ``scale_emb``, ``scale_depth / sqrt(layers)`` and ``dim_model_base / hidden_size``.
    """

    type: Literal["llama", "minicpm"] = Field(default="llama", description="The family.")
    hidden_size: Count = Field(description="d_model.")
    intermediate_size: Count = Field(description="d_ff.")
    layers: Count = Field(description="Decoder layers.")
    heads: Count = Field(description="Query heads.")
    kv_heads: Count = Field(description="Key and value heads.")
    vocabulary_size: Count | None = Field(default=None, description="Default: the tokenizer's.")
    tied_embeddings: bool = Field(default=True, description="Whether the head shares the embedding matrix.")
    scale_emb: float | None = Field(default=None, description="MiniCPM only: scale of the embeddings.")
    scale_depth: float | None = Field(default=None, description="MiniCPM only: scale of the residual branches.")
    dim_model_base: int | None = Field(default=None, description="MiniCPM only: scale of the logits.")

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size must be a multiple of heads")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        scales = (self.scale_emb, self.scale_depth, self.dim_model_base)
        if (self.type == "minicpm") != all(s is not None for s in scales) or (
            self.type == "llama" and any(s is not None for s in scales)
        ):
            raise ValueError("scale_emb, scale_depth, dim_model_base: all for type minicpm, none for llama")
        return self


class ScratchInit(Section):
    """Random weights."""

    architecture: Name = Field(description="A name in architectures.")


class RunInit(Section):
    """Weights of another run's stage; the optimizer and the step count start over."""

    run: Name = Field(description="A name in runs.")
    stage: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Default: its last stage.")


class PretrainedInit(Section):
    """Released weights."""

    pretrained: str = Field(description="A Hugging Face id or a local directory.")
    revision: str | None = Field(default=None, description="A commit, branch or tag on the hub.")
    gguf_file: str | None = Field(default=None, description="A GGUF file inside it.")
    # excluded when unset, so that other starts keep their specification
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$", exclude_if=lambda sha256: sha256 is None)] = Field(
        default=None, description="Digest of a local directory, see prosparse.experiment.bases."
    )
    architecture: Name | None = Field(default=None, description="Its shape, to estimate costs before it is fetched.")
    gated: str | None = Field(default=None, description="Where to accept its terms, if it needs an access token.")

    @model_validator(mode="after")
    def pins_a_directory(self) -> Self:
        if self.sha256 and (self.revision or self.gguf_file):
            raise ValueError("sha256: pins a local directory, give neither revision nor gguf_file")
        return self


Init = ScratchInit | RunInit | PretrainedInit
