//! The syncache: connections between their SYN and the ACK that completes the handshake.
//!
//! | driver callback | locks |
//! |---|---|
//! | tod_syncache_respond, first | none |
//! | tod_syncache_respond, retransmission | "tcp_sc_head" |
//! | tod_syncache_added, _removed | "tcp_sc_head" |
//! | tod_offload_socket | the new pcb, write-locked; the socket has no reference yet |
//!
//! A connection that comes of a SYN cookie has no entry when its ACK is here: neither
//! tod_syncache_added, nor _removed, nor tod_offload_socket is called for it, and its keep-init
//! timer runs. The driver that handed the ACK over has to take the socket itself.
//!
//! | release | what is different ([`Rules`]) |
//! |---|---|
//! | 12 | the timer and a repeated SYN go on with an entry whose SYN\|ACK could not be sent; an ACK that fits no entry takes the entry away, and one without the timestamp passes |
//! | 14, 15 | such an entry is dropped; a bad ACK leaves the entry; a missing timestamp or a sequence number out of the window answers -1 and leaves `*lsop` alone, a bad ACK 0 and leaves it, too; an overflow pauses the cache, whose entries then go, and cookies do |
//!
//! | simpler here than there | FreeBSD |
//! |---|---|
//! | one bucket and one lock for all stacks; it overflows at [`BUCKET`] entries, as many as all buckets take | `tcp_syncache.hashbase`, `bucket_limit` |
//! | the secrets of cookies follow from the time; the hash is the host's | `syncookie_reseed`, `syncookie_mac` |
//! | `tcp_syncookiesonly` without `tcp_syncookies` makes cookies, as in 15 only | `syncache_cookiesonly` |
//! | no zone that is used up, no TCP Fast Open, no MD5 signatures, no ECN, no challenge ACK | `syncache_add`, `syncache_expand`, `syncache_send_challenge_ack` |
//! | no ICMP errors | `syncache_unreach` |

mod add;
mod answer;
mod cookie;
mod entry;
mod expand;
mod socket;
mod timer;

pub(crate) use add::add;
pub use entry::{BUCKET, Rules};
pub(crate) use entry::{Entry, count, data, shutdown};
pub(crate) use expand::{expand, reset};
pub(crate) use socket::{new_socket, plain};

pub(crate) fn boot() {
    entry::boot();
    crate::sched::spawn_kthread("syncache timer", timer::run);
}

impl crate::Api {
    /// Whose syncache it is, from now on.
    pub fn syncache_rules(&self, r: Rules) {
        entry::with(|s| s.rules = r);
    }

    /// `net.inet.tcp.syncache.bucketlimit`: entries from which on the oldest makes way.
    pub fn syncache_bucket(&self, limit: usize) {
        entry::with(|s| s.bucket = limit);
    }
}
