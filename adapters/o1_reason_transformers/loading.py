"""A model of `transformers`, loaded when it is first used, and the thread in which it works."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from o1_reason.errors import ConfigurationError, ModelError, O1ReasonError

P = ParamSpec("P")
T = TypeVar("T")
Head = Literal["CausalLM", "TokenClassification"]
DType = Literal["auto", "float32", "bfloat16", "float16"]

EXTRA = "models in this process need torch and transformers: pip install 'o1-reason[transformers]'"
_PLAIN = "{% for message in messages %}{{ message['content'].rstrip('\\n') }}\n{% endfor %}"


class Local:
    """One model and its tokenizer. All its work is done in one thread of its own, a piece at a time.

    name      on the Hugging Face Hub, or a folder
    head      what the model ends in
    device    "auto": cuda where there is one, else cpu; or any that torch knows
    dtype     of the weights; "auto": as they were saved
    revision  branch, tag or commit on the Hub
    """

    def __init__(self, name: str, head: Head, device: str, dtype: str, revision: str | None) -> None:
        if not name:
            raise ConfigurationError('which model? A name or a folder, for example "transformers:Qwen/Qwen3-0.6B"')
        if dtype not in get_args(DType):
            raise ConfigurationError(f"dtype must be one of {', '.join(get_args(DType))}; got {dtype!r}")
        self._given: tuple[str, Head, str, str, str | None] = name, head, device, dtype, revision
        self.name = name
        self._thread: ThreadPoolExecutor | None = None
        self._loaded: tuple[Any, Any] | None = None
        self._identity = ""

    def __reduce__(self) -> Any:  # another process loads it anew
        return Local, self._given

    @property
    def identity(self) -> str:
        """The name and revision, or what is in the folder; and the type of the weights."""
        if not self._identity:
            name, _, _, dtype, revision = self._given
            which = digest(Path(name)) if Path(name).is_dir() else f"{name}@{revision or 'main'}"
            self._identity = f"{which}, {dtype}"
        return self._identity

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have `function` called in the model's thread, after all that was submitted before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"o1-reason {self.name}")
        return self._thread.submit(function, *args, **kwargs)

    def loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer. For the model's thread only. Raises ConfigurationError where they cannot be had."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> tuple[Any, Any]:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ConfigurationError(EXTRA) from error
        name, head, device, dtype, revision = self._given
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = getattr(transformers, f"AutoModelFor{head}")
        try:
            tokenizer = load_tokenizer(name, revision)
            with quiet(name):
                model = kind.from_pretrained(name, revision=revision, dtype=dtype).to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"the model {name!r} cannot be loaded: {error}") from error
        return model, tokenizer


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The tokenizer of a model. One without a chat template gets one: the contents of the messages, a line each."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=revision)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = tokenizer.decode(tokenizer("")["input_ids"]) + _PLAIN
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def quiet(name: str | Path) -> Iterator[None]:
    """No bar is drawn for weights in a folder, which are loaded or saved often; one for a download is."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and Path(name).is_dir()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def digest(folder: Path) -> str:
    """The sha256 of the files right in a folder: names, sizes and contents, of large files a part of these."""
    files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir()) if path.is_file()}
    return "sha256:" + hashlib.sha256(json.dumps(files).encode()).hexdigest()[:32]


def _fingerprint(path: Path, blocks: int = 256, block: int = 1 << 16) -> str:
    """Of a file above 16 MiB the beginning, the end, and blocks spread evenly between: training changes all of it, and
    gigabytes would keep the event loop waiting."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= blocks * block:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256(str(size).encode())
        for k in range(blocks):
            file.seek((size - block) * k // (blocks - 1))
            found.update(file.read(block))
    return found.hexdigest()


def as_error(error: Exception, name: str, hint: str) -> O1ReasonError:
    """What a model's failure is to o1-reason; `hint` is for one that ran out of memory."""
    if isinstance(error, O1ReasonError):
        return error
    if type(error).__name__ == "OutOfMemoryError":
        return ModelError(f"{name} ran out of memory: {hint}")
    return ModelError(f"{name} failed: {type(error).__name__}: {error}")
