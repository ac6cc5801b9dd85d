"""What becomes of each stream of the input: one decision for each, said in `status.output.streams`."""

from typing import Final

from restoration_api.ledger import StreamFacts, VideoFacts
from restoration_api.outcome import FailureReason, StreamAction, StreamOutcome
from restoration_api.request import AudioMode
from restoration_runner.errors import RestorationError

MP4_AUDIO: Final = frozenset(
    {
        "aac",
        "ac3",
        "alac",
        "dts",
        "eac3",
        "flac",
        "mp2",
        "mp3",
        "opus",
        "pcm_f32be",
        "pcm_f32le",
        "pcm_s16be",
        "pcm_s16le",
        "pcm_s24be",
        "pcm_s24le",
        "pcm_s32be",
        "pcm_s32le",
    }
)
"""Audio codecs with a registered form in MP4 (mp4ra.org; PCM by ISO/IEC 23003-5) that FFmpeg's muxer writes."""


CHAPTER_TITLES: Final = "chapters"
"""Our name for the codec of the data track that holds chapter titles; it is written anew, with the chapters."""


CLOSED_CAPTIONS: Final = "closed-captions"
"""Trait of a video whose frames carry captions (CEA-608/708), which belong to no stream of their own."""


def decide(facts: VideoFacts, *, audio: AudioMode) -> tuple[StreamOutcome, ...]:
    """The fate of every stream of the input, in the input's order.

    Raises:
        RestorationError: `InvalidParameters`, when `audio: Copy` is asked for and MP4 cannot hold a track.
    """
    return tuple(_decide(stream, facts, audio) for stream in facts.streams)


def copied(outcomes: tuple[StreamOutcome, ...]) -> tuple[int, ...]:
    """Indexes of the audio streams that are copied packet by packet."""
    return tuple(
        outcome.index for outcome in outcomes if outcome.action is StreamAction.COPIED and outcome.type == "audio"
    )


def _decide(stream: StreamFacts, facts: VideoFacts, audio: AudioMode) -> StreamOutcome:
    if stream.index == facts.stream_index:
        return _outcome(stream, StreamAction.RESTORED, _restored(stream, facts))
    if stream.codec == CHAPTER_TITLES:
        return _outcome(stream, StreamAction.COPIED, "titles of the chapters")
    if stream.type != "audio":
        return _outcome(stream, StreamAction.DROPPED, f"{_kind(stream)} is not carried over yet")
    if audio is AudioMode.DROP:
        return _outcome(stream, StreamAction.DROPPED, "output.audio is Drop")
    if stream.codec in MP4_AUDIO:
        return _outcome(stream, StreamAction.COPIED, stream.codec)
    if audio is AudioMode.COPY:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"output.audio: Copy is not possible: MP4 cannot hold {stream.codec} (stream {stream.index}); use Auto to "
            "leave that track out, or Drop.",
        )
    return _outcome(stream, StreamAction.DROPPED, f"MP4 cannot hold {stream.codec}; transcoding is not done yet")


def _restored(stream: StreamFacts, facts: VideoFacts) -> str:
    """What happens to the video, and what was guessed or lost on the way."""
    said = [f"{stream.codec} to hevc"]
    if assumed := [field for field in facts.color.assumed if field != "chroma_location"]:
        said.append(f"{', '.join(assumed)} not tagged, taken as {facts.color.matrix} {facts.color.range.value.lower()}")
    if CLOSED_CAPTIONS in facts.traits:
        said.append("closed captions inside it are dropped")
    return "; ".join(said)


def _kind(stream: StreamFacts) -> str:
    if stream.attached_picture:
        return "cover art"
    return {"video": "a second video stream", "subtitle": f"{stream.codec} subtitles"}.get(
        stream.type, f"{stream.type} stream"
    )


def _outcome(stream: StreamFacts, action: StreamAction, detail: str) -> StreamOutcome:
    said = f" ({stream.language})" if stream.language and stream.language != "und" else ""
    return StreamOutcome(index=stream.index, type=stream.type, action=action, detail=f"{detail}{said}"[:256])
