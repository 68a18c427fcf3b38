"""What a ping says of a guest."""

from cumulet.cli.lab_traffic import summary

SAID = """PING 192.0.2.7 (192.0.2.7) 56(84) bytes of data.
[1.0] 64 bytes from 192.0.2.7: icmp_seq=1 ttl=63 time=1.1 ms
[1.2] 64 bytes from 192.0.2.7: icmp_seq=2 ttl=63 time=1.1 ms
[4.2] 64 bytes from 192.0.2.7: icmp_seq=17 ttl=63 time=1.1 ms

--- 192.0.2.7 ping statistics ---
{} packets transmitted, {} received, +1 errors, 80% packet loss, time {}ms
"""
NOTHING = "--- 192.0.2.7 ping statistics ---\n9 packets transmitted, 0 received, 100% packet loss, time 1800ms\n"


def test_the_longest_silence_is_between_answers_or_at_the_ends() -> None:
    assert summary(SAID.format(17, 3, 3300)) == (17, 3, 3.0)
    sent, received, silence = summary(SAID.format(50, 3, 10200))
    assert (sent, received, round(silence, 1)) == (50, 3, 7.0)


def test_who_never_answers_is_silent_all_the_time() -> None:
    assert summary(NOTHING) == (9, 0, 1.8)
    assert summary("ping: connect: Network is unreachable") == (0, 0, 0.0)
