//! Whether large segments vanish on the way while small ones pass, told from what the kernel counts.
//!
//! Such a path has an MTU that nobody tells of: connections open, and the first full segment is sent again and again.
//! Pure; [`super::keepalive::Listening`] asks the kernel when something arrives, and when the connection has ended.

use crate::linux::sockopt::TcpCounts;

/// Times in a row that the first segment without acknowledgement must have been sent again: 1.4 s at the least.
const RETRANSMITS_MIN: u8 = 3;

/// Whether nothing that we send gets on although something just came: earlier bytes had arrived, and at least a full
/// segment is without acknowledgement after several tries.
pub(super) fn is_stuck(counts: &TcpCounts) -> bool {
    let sent = counts.bytes_sent.saturating_sub(counts.bytes_resent);
    let unacknowledged = sent.saturating_sub(counts.bytes_acked);
    // The beginning of the connection counts as one byte.
    counts.retransmits >= RETRANSMITS_MIN && counts.bytes_acked > 1 && unacknowledged >= u64::from(counts.mss)
}

/// Whether it was for the size of what we sent that the connection, stuck when something last came, has ended stuck:
/// our acknowledgements, which are small, did arrive. Else the peer would have sent the same again.
pub(super) fn large_vanished(when_stuck: &TcpCounts, at_end: &TcpCounts) -> bool {
    let heard_twice = at_end.data_segments_in != when_stuck.data_segments_in
        && at_end.bytes_received == when_stuck.bytes_received;
    at_end.bytes_acked == when_stuck.bytes_acked && !heard_twice
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUCK: TcpCounts = TcpCounts {
        retransmits: 5,
        mss: 1448,
        bytes_sent: 40_000,
        bytes_resent: 7_240,
        bytes_acked: 3_000,
        data_segments_in: 9,
        bytes_received: 4_000,
    };

    #[test]
    fn a_connection_is_stuck_when_a_full_segment_is_sent_in_vain() {
        let rows = [
            ("stuck", STUCK, true),
            ("tried as often as it has to be", TcpCounts { retransmits: 3, ..STUCK }, true),
            ("a loss", TcpCounts { retransmits: 2, ..STUCK }, false),
            ("slow, but nothing is lost", TcpCounts { retransmits: 0, bytes_resent: 0, ..STUCK }, false),
            ("nothing ever passed", TcpCounts { bytes_acked: 1, ..STUCK }, false),
            ("one full segment", TcpCounts { bytes_acked: 40_000 - 7_240 - 1448, ..STUCK }, true),
            ("less than a full segment", TcpCounts { bytes_acked: 40_000 - 7_240 - 1447, ..STUCK }, false),
            ("a kernel that counts nothing", TcpCounts::default(), false),
        ];
        for (name, counts, want) in rows {
            assert_eq!(is_stuck(&counts), want, "{name}");
        }
    }

    #[test]
    fn only_where_small_segments_pass_is_it_the_size() {
        let rows = [
            ("nothing more came", STUCK, true),
            (
                "the same came again: what is small vanishes too",
                TcpCounts { data_segments_in: 10, ..STUCK },
                false,
            ),
            ("something new came", TcpCounts { data_segments_in: 10, bytes_received: 4_017, ..STUCK }, true),
            ("it got on", TcpCounts { bytes_acked: 4_448, ..STUCK }, false),
            ("reset, so nothing is waiting", TcpCounts { retransmits: 0, ..STUCK }, true),
        ];
        for (name, end, want) in rows {
            assert_eq!(large_vanished(&STUCK, &end), want, "{name}");
        }
    }
}
