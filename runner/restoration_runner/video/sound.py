"""Packets of the input's sound in the form in which MP4 holds them.

MPEG-TS and raw AAC carry a header in every packet (ADTS) that MP4 keeps once, for the whole track. Removing it is the
only change that is ever made to sound, and it is made here, so that joining and verifying see the same packets.
"""

from collections.abc import Iterator

from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from restoration_runner.video.source import packets


def sound_packets(container: InputContainer, index: int) -> Iterator["Packet[Stream]"]:
    """All packets of stream `index`, in file order."""
    stream = container.streams[index]
    wrapped = stream.codec_context.name == "aac" and not stream.codec_context.extradata
    strip = BitStreamFilterContext("aac_adtstoasc", stream) if wrapped else None
    for packet in packets(container, stream):
        if not packet.size:
            continue
        if strip is None:
            yield packet
            continue
        for plain in strip.filter(packet):
            if stream.time_base is not None:
                plain.time_base = stream.time_base
            yield plain
