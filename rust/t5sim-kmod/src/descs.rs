//! Work requests as they lie in an egress queue. A driver hands over what it would copy there:
//! one request or more, each at the start of a descriptor. The last may end where its contents
//! do, short of the length in its header, which counts units of 16 bytes; the adapter then takes
//! what the queue held before.

/// Bytes of a descriptor (`EQ_ESIZE`).
const DESC: usize = 64;
/// Bytes that the length of a request counts in.
const UNIT: usize = 16;
/// What the queue held before: never zeros, so that nothing relies on them.
const JUNK: u8 = 0xdb;

/// Calls `take` with each request of `bytes`, whole, until one is refused. What has no sensible
/// length goes to it as it is.
pub(crate) fn requests<E>(
    bytes: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = bytes;
    loop {
        let told = wire::wr_len(rest).unwrap_or(0);
        let next = rest.get(told.next_multiple_of(DESC)..).unwrap_or(&[]);
        if next.is_empty() || told == 0 {
            return last(rest, told, take);
        }
        take(rest.get(..told).unwrap_or(rest))?;
        rest = next;
    }
}

fn last<E>(
    rest: &[u8],
    told: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut whole = [JUNK; wire::MAX_WR_LEN];
    if rest.len() >= told || rest.len().next_multiple_of(UNIT) != told {
        return take(rest);
    }
    let Some(whole) = whole.get_mut(..told) else {
        return take(rest);
    };
    if let Some(to) = whole.get_mut(..rest.len()) {
        to.copy_from_slice(rest);
    }
    take(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of so many units that has `len` bytes.
    fn wr(units: u8, len: usize) -> Vec<u8> {
        let mut wr = vec![7; len];
        if let Some(at) = wr.get_mut(7) {
            *at = units;
        }
        wr
    }

    fn taken(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        requests(bytes, |wr| {
            all.push(wr.to_vec());
            Ok::<(), ()>(())
        })
        .unwrap();
        all
    }

    #[test]
    fn whole_requests_are_taken_as_they_are() {
        for units in [1, 2, 4, 5, 32] {
            let one = wr(units, usize::from(units) * 16);
            assert_eq!(taken(&one), [one]);
        }
    }

    #[test]
    fn one_that_ends_with_its_contents_is_filled_up() {
        let all = taken(&wr(2, 24));
        let [got] = all.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!(got[..24], wr(2, 24));
        assert_eq!(got[24..], [JUNK; 8]);
    }

    #[test]
    fn each_starts_a_descriptor() {
        let (flowc, abort) = (wr(4, 56), wr(2, 32));
        let mut both = flowc;
        both.resize(64, 0);
        both.extend(&abort);
        let all = taken(&both);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], both[..64]);
        assert_eq!(all[1], abort);
        let (long, end) = (wr(5, 80), wr(2, 24));
        let mut both = long.clone();
        both.resize(128, 0);
        both.extend(&end);
        let all = taken(&both);
        assert_eq!(all[0], long);
        assert_eq!((all[1].len(), all[1][..24].to_vec()), (32, end));
    }

    #[test]
    fn what_makes_no_sense_is_left_to_the_card() {
        // No header; no length; more missing than the last unit; more than a request can have;
        // more than the header says, within the descriptor.
        for bytes in [wr(0, 3), wr(0, 64), wr(4, 40), wr(255, 4072), wr(1, 48)] {
            assert_eq!(taken(&bytes), [bytes]);
        }
    }

    #[test]
    fn the_first_refusal_ends_it() {
        let mut n = 0;
        let all = [wr(4, 64), wr(4, 64), wr(4, 64)].concat();
        let done = requests(&all, |_| {
            n += 1;
            if n == 2 { Err(n) } else { Ok(()) }
        });
        assert_eq!(done, Err(2));
    }
}
