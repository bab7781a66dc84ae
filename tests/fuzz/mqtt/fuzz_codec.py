"""Coverage-guided fuzzing of the decoders: `python tests/fuzz/mqtt/fuzz_codec.py [-max_total_time=60] [CORPUS]`.

The first byte chooses version and role, the second the size of the pieces. An exception is a finding.
"""

import sys

import atheris

with atheris.instrument_imports(include=["godwit.mqtt"]):
    from godwit.mqtt.codec import Decoder, encode
    from godwit.mqtt.packets import Auth, Connect, Disconnect, Publish

SECONDS = 30
CHOICES = [(role, version) for role in ("server", "client") for version in (None, 4, 5)]


def test_one_input(data: bytes) -> None:
    """Feed the bytes whole and in pieces; what was read at all can be written, where both are right to say it."""
    if len(data) < 3:
        return
    role, version = CHOICES[data[0] % len(CHOICES)]
    size, stream = data[1] % 32 + 1, data[2:]
    whole, pieces = Decoder(role, version=version), Decoder(role, version=version)
    found = whole.feed(stream)
    again = [each for at in range(0, len(stream), size) for each in pieces.feed(stream[at : at + size])]
    assert found == again
    assert (whole.error is None) == (pieces.error is None)
    for packet in found:
        if isinstance(packet, Publish):
            (read,) = Decoder("client", version=whole.version or 5).feed(encode(packet, whole.version or 5))
            assert read == packet
        assert not isinstance(packet, (Auth, Connect, Disconnect)) or packet.user_properties is not None


def main() -> None:
    """Run for a bounded time unless told otherwise."""
    arguments = list(sys.argv)
    if not any(each.startswith(("-max_total_time", "-runs")) for each in arguments):
        arguments.append(f"-max_total_time={SECONDS}")
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
