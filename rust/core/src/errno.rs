//! FreeBSD error numbers (`sys/errno.h`) that connections report.

/// A FreeBSD errno, never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(core::num::NonZeroI32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $n:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno::known($n);)*
        }
    };
}

impl Errno {
    const fn known(n: i32) -> Errno {
        match core::num::NonZeroI32::new(n) {
            Some(n) => Errno(n),
            None => panic!("0 is no errno"),
        }
    }

    /// `None` for 0, which is no error.
    #[must_use]
    pub const fn new(n: i32) -> Option<Errno> {
        match core::num::NonZeroI32::new(n) {
            Some(n) => Some(Errno(n)),
            None => None,
        }
    }

    /// The number as C knows it.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0.get()
    }
}

errnos! {
    /// Input/output error.
    EIO = 5;
    /// Cannot allocate memory.
    ENOMEM = 12;
    /// Bad address.
    EFAULT = 14;
    /// Device busy.
    EBUSY = 16;
    /// Invalid argument.
    EINVAL = 22;
    /// Broken pipe.
    EPIPE = 32;
    /// Resource temporarily unavailable.
    EAGAIN = 35;
    /// Operation not supported.
    EOPNOTSUPP = 45;
    /// Network is down.
    ENETDOWN = 50;
    /// Software caused connection abort.
    ECONNABORTED = 53;
    /// Connection reset by peer.
    ECONNRESET = 54;
    /// No buffer space available.
    ENOBUFS = 55;
    /// Socket is not connected.
    ENOTCONN = 57;
    /// Operation timed out.
    ETIMEDOUT = 60;
    /// Connection refused.
    ECONNREFUSED = 61;
    /// No route to host.
    EHOSTUNREACH = 65;
    /// Operation canceled.
    ECANCELED = 85;
}
