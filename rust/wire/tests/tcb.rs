//! TCB words and the updates of DDP.
//!
//! The reference is t4_tcb.h's own numbering: each field's first and last bit in the whole TCB
//! of 1024 bits. The crate works with words and pairs of words.

mod common;

use common::{ROUNDS, Rng};
use wire::{
    DdpBuf, MAX_DDP_LEN, TF_DDP_ACTIVE_BUF, TF_DDP_BUF0_FLUSH, TF_DDP_BUF0_INDICATE,
    TF_DDP_BUF0_VALID, TF_DDP_INDICATE_OUT, TF_DDP_OFF, TF_DDP_PSH_NO_INVALIDATE0,
    TF_DDP_PSHF_ENABLE_0, TF_DDP_PUSH_DISABLE_0, TF_NAGLE, TF_RCV_COALESCE_ENABLE,
    TF_RX_FLOW_CONTROL_DDP, Tcb, TcbUpdate, W_RX_DDP_FLAGS, W_T_FLAGS, W_ULP_TYPE, arm,
    coalesce_off, ddp_clear, ddp_on, invalidate, nagle, reached, rx_flow_control_ddp,
    ulp_mode_tcpddp,
};

const BUFS: [DdpBuf; 2] = [DdpBuf::B0, DdpBuf::B1];

/// First and last bit of a field in the TCB.
type Field = (usize, usize);
const ULP_TYPE: Field = (0, 3);
const T_FLAGS: Field = (32, 95);
const DDP_FLAGS: Field = (880, 903);
const OFFSET: [Field; 2] = [(832, 855), (904, 927)];
const LEN: [Field; 2] = [(856, 879), (928, 951)];
const TAG: [Field; 2] = [(960, 991), (992, 1023)];

fn read(t: &Tcb, f: Field) -> u64 {
    (f.0..=f.1).fold(0, |v, bit| {
        v | u64::from(t.words[bit / 32] >> (bit % 32) & 1) << (bit - f.0)
    })
}

fn write(t: &mut Tcb, f: Field, v: u64) {
    for bit in f.0..=f.1 {
        let one = 1 << (bit % 32);
        if v >> (bit - f.0) & 1 != 0 {
            t.words[bit / 32] |= one;
        } else {
            t.words[bit / 32] &= !one;
        }
    }
}

/// The DDP flags where the `TF_DDP_*` constants have them.
fn ddp_flags(t: &Tcb) -> u64 {
    read(t, DDP_FLAGS) << 16
}

fn random_tcb(r: &mut Rng) -> Tcb {
    let mut t = Tcb::default();
    t.words.fill_with(|| r.u32());
    t
}

fn ones() -> Tcb {
    Tcb {
        words: [u32::MAX; 32],
    }
}

/// What is left of the TCB without the fields: they are zeroed.
fn without(t: &Tcb, fields: &[Field]) -> Tcb {
    let mut t = t.clone();
    for f in fields {
        write(&mut t, *f, 0);
    }
    t
}

fn apply(t: &mut Tcb, updates: &[TcbUpdate]) {
    for u in updates {
        t.set_field(u);
    }
}

#[test]
fn flags_are_the_bits_of_the_header() {
    assert_eq!(
        [TF_NAGLE, TF_RX_FLOW_CONTROL_DDP, TF_RCV_COALESCE_ENABLE],
        [1 << 7, 1 << 9, 1 << 29]
    );
    assert_eq!(
        [TF_DDP_INDICATE_OUT, TF_DDP_ACTIVE_BUF, TF_DDP_OFF],
        [1 << 16, 1 << 17, 1 << 18]
    );
    let per_buffer = [
        TF_DDP_BUF0_VALID,
        TF_DDP_BUF0_INDICATE,
        TF_DDP_BUF0_FLUSH,
        TF_DDP_PSHF_ENABLE_0,
        TF_DDP_PUSH_DISABLE_0,
        TF_DDP_PSH_NO_INVALIDATE0,
    ];
    for (i, f) in per_buffer.into_iter().enumerate() {
        assert_eq!(DdpBuf::B0.flag(f), 1 << (24 + i));
        assert_eq!(DdpBuf::B1.flag(f), 1 << (32 + i));
    }
}

#[test]
fn buffers_by_index() {
    assert_eq!(BUFS.map(DdpBuf::index), [0, 1]);
    assert_eq!([0, 1].map(DdpBuf::from_index), BUFS);
    assert_eq!(BUFS.map(DdpBuf::other), [DdpBuf::B1, DdpBuf::B0]);
}

#[test]
fn set_field_changes_a_pair_of_words_and_returns_what_was_there() {
    let mut t = Tcb::default();
    t.words[4] = 0x1111_1111;
    t.words[5] = 0x2222_2222;
    t.words[6] = 0x3333_3333;
    let u = TcbUpdate {
        word: 4,
        mask: 0xffff_0000_0000_00ff,
        value: 0xabcd_ffff_ffff_ff42,
    };
    assert_eq!(t.set_field(&u), 0x2222_2222_1111_1111);
    assert_eq!(t.words[4..7], [0x1111_1142, 0xabcd_2222, 0x3333_3333]);
    let u = TcbUpdate {
        word: 5,
        mask: u64::MAX,
        value: 0x5555_5555_4444_4444,
    };
    assert_eq!(t.set_field(&u), 0x3333_3333_abcd_2222);
    assert_eq!(t.words[4..7], [0x1111_1142, 0x4444_4444, 0x5555_5555]);
}

#[test]
fn set_field_with_no_mask_only_reads() {
    let mut t = random_tcb(&mut Rng::new(5));
    let before = t.clone();
    for word in 0..31 {
        let (lo, hi) = (t.words[usize::from(word)], t.words[usize::from(word) + 1]);
        let old = t.set_field(&TcbUpdate {
            word,
            mask: 0,
            value: u64::MAX,
        });
        assert_eq!(old, u64::from(hi) << 32 | u64::from(lo));
    }
    assert_eq!(t, before);
}

#[test]
fn set_field_at_the_last_word_has_no_upper_half() {
    let mut t = Tcb::default();
    t.words[31] = 0x1234_5678;
    t.words[0] = 0x9999_9999;
    let u = TcbUpdate {
        word: 31,
        mask: u64::MAX,
        value: 0xaaaa_aaaa_5555_5555,
    };
    assert_eq!(t.set_field(&u), 0x1234_5678);
    assert_eq!((t.words[31], t.words[0]), (0x5555_5555, 0x9999_9999));
}

#[test]
fn set_field_is_as_bit_by_bit() {
    let mut r = Rng::new(0x7cb);
    for round in 0..ROUNDS {
        let mut t = random_tcb(&mut r);
        let u = TcbUpdate {
            word: r.below(31) as u8,
            mask: r.u64(),
            value: r.u64(),
        };
        let window = (usize::from(u.word) * 32, usize::from(u.word) * 32 + 63);
        let (mut want, old) = (t.clone(), read(&t, window));
        for bit in 0..64 {
            if u.mask >> bit & 1 != 0 {
                let at = window.0 + bit;
                write(&mut want, (at, at), u.value >> bit & 1);
            }
        }
        assert_eq!(t.set_field(&u), old, "round {round}");
        assert_eq!(t, want, "round {round}");
    }
}

#[test]
fn any_word_is_safe() {
    let mut t = Tcb::default();
    for word in 0..=255 {
        t.set_field(&TcbUpdate {
            word,
            mask: u64::MAX,
            value: u64::MAX,
        });
    }
}

#[test]
fn getters_read_the_fields_of_the_header() {
    let mut r = Rng::new(0x6e7);
    for round in 0..ROUNDS {
        let t = random_tcb(&mut r);
        let f = ddp_flags(&t);
        assert_eq!(u64::from(t.ulp_type()), read(&t, ULP_TYPE));
        assert_eq!(
            t.rcv_coalesce(),
            read(&t, T_FLAGS) & TF_RCV_COALESCE_ENABLE != 0
        );
        assert_eq!(
            t.rx_fc_ddp(),
            read(&t, T_FLAGS) & TF_RX_FLOW_CONTROL_DDP != 0
        );
        assert_eq!(t.ddp_off(), f & TF_DDP_OFF != 0);
        assert_eq!(t.active_buf() == DdpBuf::B1, f & TF_DDP_ACTIVE_BUF != 0);
        for (i, buf) in BUFS.into_iter().enumerate() {
            let flag = |n: usize| f >> (24 + 8 * i + n) & 1 != 0;
            assert_eq!(t.buf_valid(buf), flag(0), "round {round}");
            assert_eq!(t.buf_indicate(buf), flag(1));
            assert_eq!(t.buf_flush(buf), flag(2));
            assert_eq!(t.push_disable(buf), flag(4));
            assert_eq!(t.psh_no_invalidate(buf), flag(5));
            assert_eq!(u64::from(t.buf_offset(buf)), read(&t, OFFSET[i]));
            assert_eq!(u64::from(t.buf_len(buf)), read(&t, LEN[i]));
            assert_eq!(u64::from(t.buf_tag(buf)), read(&t, TAG[i]));
        }
    }
}

#[test]
fn set_buf_offset_changes_the_offset_alone() {
    let mut r = Rng::new(0x0ff);
    for (i, buf) in BUFS.into_iter().enumerate() {
        for off in [0, 1, 0x7f_ffff, 0x80_0000, MAX_DDP_LEN] {
            let mut t = random_tcb(&mut r);
            let mut want = t.clone();
            write(&mut want, OFFSET[i], u64::from(off));
            t.set_buf_offset(buf, off);
            assert_eq!(t, want);
            assert_eq!(t.buf_offset(buf), off);
        }
    }
}

#[test]
fn set_active_buf_changes_one_bit() {
    for start in [Tcb::default(), ones()] {
        for buf in BUFS {
            let mut t = start.clone();
            let mut want = start.clone();
            write(&mut want, (881, 881), u64::from(buf == DdpBuf::B1));
            t.set_active_buf(buf);
            assert_eq!((&t, t.active_buf()), (&want, buf));
        }
    }
}

#[test]
fn set_flags_changes_what_the_mask_says() {
    let mut t = Tcb::default();
    t.set_flags(TF_DDP_OFF | TF_DDP_BUF0_VALID, TF_DDP_OFF);
    assert_eq!(ddp_flags(&t), TF_DDP_OFF);
    let both = TF_DDP_BUF0_VALID | DdpBuf::B1.flag(TF_DDP_BUF0_VALID);
    t.set_flags(both, both);
    assert_eq!(ddp_flags(&t), TF_DDP_OFF | both);
    assert_eq!(without(&t, &[DDP_FLAGS]), Tcb::default());
}

// Switching DDP on.

#[test]
fn ulp_mode_is_five() {
    let u = ulp_mode_tcpddp();
    assert_eq!((u.word, u.mask, u.value), (W_ULP_TYPE, 0xf, 5));
    let mut t = ones();
    t.set_field(&u);
    assert_eq!(t.ulp_type(), 5);
    assert_eq!(without(&t, &[ULP_TYPE]), without(&ones(), &[ULP_TYPE]));
}

#[test]
fn flow_control_and_coalescing_are_one_bit_each() {
    let mut t = Tcb::default();
    t.set_field(&rx_flow_control_ddp());
    assert!(t.rx_fc_ddp());
    assert_eq!(read(&t, T_FLAGS), 1 << 9);
    let mut t = ones();
    t.set_field(&coalesce_off());
    assert!(!t.rcv_coalesce());
    assert_eq!(read(&t, T_FLAGS), !(1 << 29));
}

#[test]
fn nagle_on_and_off() {
    let mut t = Tcb::default();
    t.set_field(&nagle(true));
    assert_eq!(read(&t, T_FLAGS), 1 << 7);
    t.set_field(&nagle(false));
    assert_eq!(t, Tcb::default());
    assert_eq!(nagle(true).word, W_T_FLAGS);
}

#[test]
fn ddp_on_known_values() {
    let u = ddp_on();
    assert_eq!(u.word, W_RX_DDP_FLAGS);
    assert_eq!(u.mask, 0x3_0305_0000);
    assert_eq!(u.value, 0x2_0200_0000);
}

#[test]
fn ddp_on_leaves_both_buffers_invalid_and_indicating() {
    for start in [Tcb::default(), ones()] {
        let mut t = start.clone();
        t.set_field(&ddp_on());
        assert!(!t.ddp_off());
        assert_eq!(ddp_flags(&t) & TF_DDP_INDICATE_OUT, 0);
        for buf in BUFS {
            assert!(!t.buf_valid(buf) && t.buf_indicate(buf));
            assert_eq!(t.buf_flush(buf), start.buf_flush(buf));
        }
        assert_eq!(without(&t, &[DDP_FLAGS]), without(&start, &[DDP_FLAGS]));
    }
}

#[test]
fn ddp_clear_leaves_ddp_off_and_nothing_else() {
    let mut t = ones();
    apply(&mut t, &ddp_clear());
    assert!(
        t.ddp_off(),
        "another mode's leftovers must not switch DDP on"
    );
    assert_eq!(ddp_flags(&t), TF_DDP_OFF);
    assert_eq!(t.words[..26], [u32::MAX; 26]);
    assert_eq!(t.words[26..], [0, 1 << 18, 0, 0, 0, 0]);
}

// Arming.

#[test]
fn arm_buffer_0_known_values() {
    let [tag, place, flags] = arm(DdpBuf::B0, 0x4000_1240, 0x12_3456, 0xab_cdef, true, false);
    let want = TcbUpdate {
        word: 30,
        mask: 0xffff_ffff,
        value: 0x4000_1240,
    };
    assert_eq!(tag, want);
    let want = TcbUpdate {
        word: 26,
        mask: 0xffff_ffff_ffff,
        value: 0xabcd_ef12_3456,
    };
    assert_eq!(place, want);
    // VALID, FLUSH, PSHF_ENABLE, PUSH_DISABLE, PSH_NO_INVALIDATE, and ACTIVE_BUF.
    let want = TcbUpdate {
        word: 27,
        mask: 0x3d02_0000,
        value: 0x0100_0000,
    };
    assert_eq!(flags, want);
}

#[test]
fn arm_buffer_1_known_values() {
    let [tag, place, flags] = arm(DdpBuf::B1, 0x8000_0040, 0x12_3456, 0xab_cdef, true, true);
    let want = TcbUpdate {
        word: 31,
        mask: 0xffff_ffff,
        value: 0x8000_0040,
    };
    assert_eq!(tag, want);
    let want = TcbUpdate {
        word: 28,
        mask: 0x00ff_ffff_ffff_ff00,
        value: 0x00ab_cdef_1234_5600,
    };
    assert_eq!(place, want);
    let want = TcbUpdate {
        word: 27,
        mask: 0x3d_0002_0000,
        value: 0x05_0002_0000,
    };
    assert_eq!(flags, want);
}

#[test]
fn arm_of_a_second_buffer_leaves_the_active_one() {
    for buf in BUFS {
        let [.., flags] = arm(buf, 0, 0, 4096, false, false);
        assert_eq!((flags.mask | flags.value) & TF_DDP_ACTIVE_BUF, 0);
        for active in BUFS {
            let mut t = Tcb::default();
            t.set_active_buf(active);
            apply(&mut t, &arm(buf, 0, 0, 4096, false, false));
            assert_eq!(t.active_buf(), active);
        }
    }
}

#[test]
fn arm_at_8_mib_and_beyond() {
    for buf in BUFS {
        for off in [0x7f_ffff, 0x80_0000, 0x80_0001, 0xc0_0000, 0xff_fffe] {
            for len in [off + 1, MAX_DDP_LEN] {
                let mut t = ones();
                apply(&mut t, &arm(buf, 0x40, off, len, true, false));
                assert_eq!((t.buf_offset(buf), t.buf_len(buf)), (off, len), "{buf:?}");
                // The neighbour of buffer 1's length in the last 8 bits of word 29.
                assert_eq!(t.words[29] >> 24, 0xff);
            }
        }
    }
}

#[test]
fn arm_cuts_what_is_wider_than_24_bits() {
    for buf in BUFS {
        let mut t = ones();
        apply(&mut t, &arm(buf, 0, 0xff00_0001, 0x0100_0002, true, false));
        assert_eq!((t.buf_offset(buf), t.buf_len(buf)), (1, 2));
        assert_eq!(t.buf_len(buf.other()), MAX_DDP_LEN);
    }
}

#[test]
fn arm_changes_its_own_fields_only() {
    let mut r = Rng::new(0xa23);
    for round in 0..ROUNDS {
        let start = random_tcb(&mut r);
        let buf = BUFS[r.below(2)];
        let i = buf.index();
        let (tag, off, len) = (r.u32(), r.bits(24), r.bits(24));
        let (only, flush) = (r.bool(), r.bool());
        let mut want = start.clone();
        write(&mut want, TAG[i], u64::from(tag));
        write(&mut want, OFFSET[i], u64::from(off));
        write(&mut want, LEN[i], u64::from(len));
        // VALID, then INDICATE as it was, FLUSH, and three push flags off.
        let first = 888 + 8 * i;
        write(&mut want, (first, first), 1);
        write(&mut want, (first + 2, first + 2), u64::from(flush));
        write(&mut want, (first + 3, first + 5), 0);
        if only {
            write(&mut want, (881, 881), i as u64);
        }
        let mut t = start.clone();
        apply(&mut t, &arm(buf, tag, off, len, only, flush));
        assert_eq!(t, want, "round {round}");
    }
}

#[test]
fn both_buffers_armed_do_not_disturb_each_other() {
    let mut r = Rng::new(0x2b);
    for _ in 0..ROUNDS {
        let mut t = random_tcb(&mut r);
        let a = [
            (r.u32(), r.bits(24), r.bits(24)),
            (r.u32(), r.bits(24), r.bits(24)),
        ];
        let first = BUFS[r.below(2)];
        for (only, buf) in [(true, first), (false, first.other())] {
            let (tag, off, len) = a[buf.index()];
            apply(&mut t, &arm(buf, tag, off, len, only, r.bool()));
        }
        assert_eq!(t.active_buf(), first);
        for buf in BUFS {
            assert!(t.buf_valid(buf));
            assert_eq!(
                (t.buf_tag(buf), t.buf_offset(buf), t.buf_len(buf)),
                a[buf.index()]
            );
        }
    }
}

// Invalidating.

#[test]
fn invalidate_known_values() {
    let want = TcbUpdate {
        word: 26,
        mask: 1 << 56,
        value: 0,
    };
    assert_eq!(invalidate(DdpBuf::B0), want);
    let want = TcbUpdate {
        word: 27,
        mask: 1 << 32,
        value: 0,
    };
    assert_eq!(invalidate(DdpBuf::B1), want);
}

#[test]
fn invalidate_clears_one_bit() {
    for buf in BUFS {
        let mut t = ones();
        t.set_field(&invalidate(buf));
        assert!(!t.buf_valid(buf) && t.buf_valid(buf.other()));
        let valid = 888 + 8 * buf.index();
        let mut want = ones();
        write(&mut want, (valid, valid), 0);
        assert_eq!(t, want);
    }
}

#[test]
fn reached_known_values() {
    // Words 26 and 27: offset 0x123456, length 0x10_0000, VALID.
    assert_eq!(
        reached(DdpBuf::B0, 0x0100_0010_0012_3456),
        (0x12_3456, true)
    );
    assert_eq!(
        reached(DdpBuf::B0, 0xfeff_ffff_ff80_0000),
        (0x80_0000, false)
    );
    // Words 27 and 28: buffer 1's VALID is the lowest bit of word 28, the offset 8 bits up.
    assert_eq!(
        reached(DdpBuf::B1, 0x1234_5601_0000_0000),
        (0x12_3456, true)
    );
    assert_eq!(
        reached(DdpBuf::B1, 0x8000_00fe_ffff_ffff),
        (0x80_0000, false)
    );
}

#[test]
fn invalidate_says_what_was_reached() {
    let mut r = Rng::new(0x1a7);
    for round in 0..ROUNDS {
        let mut t = random_tcb(&mut r);
        let buf = BUFS[r.below(2)];
        let (start, end) = (r.bits(24), r.bits(24));
        apply(&mut t, &arm(buf, r.u32(), start, end, true, false));
        // The other buffer's state must not show in the answer.
        apply(
            &mut t,
            &arm(buf.other(), r.u32(), r.bits(24), r.bits(24), false, true),
        );
        let off = r.bits(24);
        t.set_buf_offset(buf, off);
        let valid = r.bool();
        if !valid {
            t.set_flags(buf.flag(TF_DDP_BUF0_VALID), 0);
        }
        let old = t.set_field(&invalidate(buf));
        assert_eq!(reached(buf, old), (off, valid), "round {round}");
        assert!(!t.buf_valid(buf) && t.buf_valid(buf.other()));
        // A second time it was invalid already, and the offset is where it was.
        let old = t.set_field(&invalidate(buf));
        assert_eq!(reached(buf, old), (off, false));
    }
}

#[test]
fn reached_at_8_mib_and_beyond() {
    for buf in BUFS {
        for off in [0x7f_ffff, 0x80_0000, 0x80_0001, 0xc0_0000, MAX_DDP_LEN] {
            let mut t = ones();
            apply(&mut t, &arm(buf, 0, off, MAX_DDP_LEN, true, false));
            let old = t.set_field(&invalidate(buf));
            assert_eq!(reached(buf, old), (off, true), "{buf:?}");
        }
    }
}

#[test]
fn the_invalidation_can_hand_over_the_active_buffer() {
    // The flags word is the upper half of the pair at 26 and the lower of that at 27.
    for buf in BUFS {
        let mut t = Tcb::default();
        apply(&mut t, &arm(buf, 0, 0, 4096, true, false));
        apply(&mut t, &arm(buf.other(), 0, 0, 4096, false, false));
        t.set_buf_offset(buf, 100);
        let mut u = invalidate(buf);
        let bit = TF_DDP_ACTIVE_BUF << (32 * (W_RX_DDP_FLAGS - u.word));
        u.mask |= bit;
        u.value |= if buf == DdpBuf::B0 { bit } else { 0 };
        let old = t.set_field(&u);
        assert_eq!(reached(buf, old), (100, true));
        assert_eq!(t.active_buf(), buf.other());
        assert!(t.buf_valid(buf.other()));
    }
}
