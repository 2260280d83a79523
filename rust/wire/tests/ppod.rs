//! Page pods and DDP tags.

mod common;

use common::{ROUNDS, Rng, cuts, emitted, hex, refused};
use wire::{PPOD_ADDRS, PPOD_PAGES, PagePod, PpodTag, WireError, tag_mask};

fn pod() -> PagePod {
    PagePod {
        valid: true,
        tid: 0x12_3456,
        tag: 0x8000_1240,
        len: 0x0001_2000,
        offset: 0xabc,
        addrs: [0x1_0000_1000, 0x2000, 0x3000, 0xffff_ffff_f000, 0x5000],
    }
}

#[test]
fn known_bytes() {
    let want = hex("01123456 80001240
                    00012000 00000abc
                    00000000 00000000
                    00000001 00001000
                    00000000 00002000
                    00000000 00003000
                    0000ffff fffff000
                    00000000 00005000");
    assert_eq!(want.len(), PagePod::LEN);
    assert_eq!(emitted(PagePod::LEN, |b| pod().emit(b)), want);
    assert_eq!(PagePod::parse(&want), Ok(pod()));
}

#[test]
fn an_empty_pod_is_all_zero() {
    assert_eq!(
        emitted(PagePod::LEN, |b| PagePod::default().emit(b)),
        vec![0; 64]
    );
    assert_eq!(PagePod::parse(&[0; 64]), Ok(PagePod::default()));
}

#[test]
fn truncated_at_every_length() {
    cuts(&emitted(PagePod::LEN, |b| pod().emit(b)), PagePod::parse);
}

#[test]
fn a_wide_tid_is_refused() {
    let mut b = [0xa5; 64];
    assert_eq!(
        refused(
            PagePod {
                tid: 1 << 24,
                ..pod()
            }
            .emit(&mut b)
        ),
        "tid"
    );
    assert_eq!(b, [0xa5; 64]);
    assert_eq!(
        PagePod {
            tid: (1 << 24) - 1,
            ..pod()
        }
        .emit(&mut b),
        Ok(())
    );
    assert_eq!(&b[..4], &[1, 0xff, 0xff, 0xff]);
}

#[test]
fn only_bit_56_makes_a_pod_valid() {
    let mut b = [0xff; 64];
    b[0] = 0xfe;
    let p = PagePod::parse(&b).expect("64 bytes");
    assert!(!p.valid);
    assert_eq!((p.tid, p.tag), (0x00ff_ffff, 0xffff_ffff));
    b[0] = 1;
    assert!(PagePod::parse(&b).expect("64 bytes").valid);
}

#[test]
fn the_reserved_word_is_written_zero_and_read_over() {
    let mut b = emitted(PagePod::LEN, |b| pod().emit(b));
    b[16..24].fill(0xff);
    assert_eq!(PagePod::parse(&b), Ok(pod()));
}

#[test]
fn four_pages_and_the_next_pods_first() {
    assert_eq!((PPOD_PAGES, PPOD_ADDRS, PagePod::LEN), (4, 5, 64));
}

#[test]
fn round_trips() {
    let mut r = Rng::new(0x90d);
    for round in 0..ROUNDS {
        let p = PagePod {
            valid: r.bool(),
            tid: r.bits(24),
            tag: r.u32(),
            len: r.u32(),
            offset: r.u32(),
            addrs: [r.u64(), r.u64(), r.u64(), r.u64(), r.u64()],
        };
        let mut b = [0xa5; PagePod::LEN];
        p.emit(&mut b).expect("fits");
        assert_eq!(PagePod::parse(&b), Ok(p), "round {round}");
        // Every bit behind the reserved word is an address's.
        let mut damaged = b;
        r.damage(&mut damaged[24..]);
        assert_eq!(
            PagePod::parse(&damaged) == Ok(p),
            damaged == b,
            "round {round}"
        );
    }
}

#[test]
fn tag_is_page_size_and_offset() {
    let t = PpodTag::new(2, 0x1240);
    assert_eq!(t, PpodTag(0x8000_1240));
    assert_eq!((t.pgsz(), t.offset(u32::MAX)), (2, 0x1240));
    assert_eq!(PpodTag::new(0, 0), PpodTag(0));
    assert_eq!(PpodTag::new(3, 0x3fff_ffc0), PpodTag(0xffff_ffc0));
}

#[test]
fn tag_cuts_what_is_outside_its_fields() {
    // The color (bits 5 to 0) stays 0, and an offset does not reach the page size.
    assert_eq!(PpodTag::new(5, 0xc000_007f), PpodTag(0x4000_0040));
    assert_eq!(PpodTag(0xffff_ffff).offset(u32::MAX), 0x3fff_ffc0);
}

#[test]
fn tag_offset_is_under_the_mask() {
    let mask = tag_mask(0x1_0000);
    assert_eq!(PpodTag(0x4000_0000 | 0x00f1_0040).offset(mask), 0x1_0040);
    assert_eq!(PpodTag(0x4000_0000 | 0x00f0_0040).offset(mask), 0x40);
}

#[test]
fn tag_mask_known_values() {
    assert_eq!(tag_mask(0), 0);
    assert_eq!(tag_mask(1), 0);
    assert_eq!(tag_mask(63), 0);
    assert_eq!(tag_mask(64), 0x40);
    assert_eq!(tag_mask(0x1000), 0x1fc0);
    assert_eq!(tag_mask(0x1_0000), 0x1_ffc0);
    assert_eq!(tag_mask(0x2_8000), 0x3_ffc0);
    assert_eq!(tag_mask(1 << 24), 0x01ff_ffc0);
    assert_eq!(tag_mask(0xffff_ffff), 0x3fff_ffc0);
}

#[test]
fn tag_mask_keeps_one_bit_above_a_region_that_is_a_power_of_two() {
    for shift in 6..29 {
        let size = 1u32 << shift;
        let mask = tag_mask(size);
        let last = size - 64;
        assert_eq!(last & mask, last, "every offset is under the mask");
        assert_eq!(size & mask, size, "and the bit above them is in it");
        assert_eq!(mask & !(size | (size - 1)), 0, "and no further one");
    }
}

#[test]
fn tags_round_trip() {
    let mut r = Rng::new(0x7a6);
    for _ in 0..ROUNDS {
        let (pgsz, offset) = (r.u8() & 3, r.u32() & PpodTag::OFFSET_MASK);
        let t = PpodTag::new(pgsz, offset);
        assert_eq!((t.pgsz(), t.offset(u32::MAX)), (pgsz, offset));
    }
}

#[test]
fn short_room_says_how_much_is_needed() {
    assert_eq!(
        pod().emit(&mut [0; 63]),
        Err(WireError::Truncated { need: 64, have: 63 })
    );
    assert_eq!(
        PagePod::parse(&[0; 63]),
        Err(WireError::Truncated { need: 64, have: 63 })
    );
}
