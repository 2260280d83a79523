//! Option words of the open messages.

mod common;

use common::{ROUNDS, Rng};
use wire::{Chip, Opt0, Opt2, TcpOpt, UlpMode};

const CHIPS: [Chip; 3] = [Chip::T4, Chip::T5, Chip::T6];
/// RX_COALESCE_VALID, CONG_CNTRL_VALID, PACE_VALID, RX_FC_VALID.
const T4_VALID: u32 = 0x004c_0800;
/// T5_OPT_2_VALID.
const T5_VALID: u32 = 0x8000_0000;

fn opt2_valid(chip: Chip) -> u32 {
    match chip {
        Chip::T4 => T4_VALID,
        Chip::T5 | Chip::T6 => T5_VALID,
    }
}

#[test]
fn ulp_modes() {
    assert_eq!((UlpMode::None as u8, UlpMode::TcpDdp as u8), (0, 5));
}

#[test]
fn opt0_known_word() {
    let o = Opt0 {
        tx_chan: 1,
        ulp_mode: 5,
        rcv_bufsiz: 0x200,
        dscp: 0x2e,
        smac_sel: 0x81,
        l2t_idx: 0xabc,
        tcam_bypass: true,
        nagle: true,
        wnd_scale: 7,
        keep_alive: true,
        mss_idx: 9,
        non_offload: false,
    };
    // 9 at 60; KEEP_ALIVE 54; 7 at 50; NAGLE 49; TCAM_BYPASS 48; 0xabc at 36; 0x81 at 28;
    // 0x2e at 22; 0x200 at 12; 5 at 8; 1 at 2.
    assert_eq!(o.to_bits(), 0x905f_abc8_1ba0_0504);
    assert_eq!(Opt0::from_bits(0x905f_abc8_1ba0_0504), o);
}

#[test]
fn opt0_fields_fill_their_bits_and_no_others() {
    let no = Opt0::default();
    assert_eq!(no.to_bits(), 0);
    let each = [
        (
            Opt0 {
                tx_chan: 0xff,
                ..no
            },
            2,
            2,
        ),
        (
            Opt0 {
                non_offload: true,
                ..no
            },
            7,
            1,
        ),
        (
            Opt0 {
                ulp_mode: 0xff,
                ..no
            },
            8,
            4,
        ),
        (
            Opt0 {
                rcv_bufsiz: 0xffff,
                ..no
            },
            12,
            10,
        ),
        (Opt0 { dscp: 0xff, ..no }, 22, 6),
        (
            Opt0 {
                smac_sel: 0xff,
                ..no
            },
            28,
            8,
        ),
        (
            Opt0 {
                l2t_idx: 0xffff,
                ..no
            },
            36,
            12,
        ),
        (
            Opt0 {
                tcam_bypass: true,
                ..no
            },
            48,
            1,
        ),
        (Opt0 { nagle: true, ..no }, 49, 1),
        (
            Opt0 {
                wnd_scale: 0xff,
                ..no
            },
            50,
            4,
        ),
        (
            Opt0 {
                keep_alive: true,
                ..no
            },
            54,
            1,
        ),
        (
            Opt0 {
                mss_idx: 0xff,
                ..no
            },
            60,
            4,
        ),
    ];
    let mut seen = 0;
    for (o, shift, width) in each {
        let want = ((1u64 << width) - 1) << shift;
        assert_eq!(o.to_bits(), want, "{o:?}");
        assert_eq!(Opt0::from_bits(want).to_bits(), want);
        assert_eq!(Opt0::from_bits(!want).to_bits() & want, 0);
        assert_eq!(seen & want, 0, "two fields in one place");
        seen |= want;
    }
    // The rest: ACCEPT_MODE, NO_CONG, DELACK, INJECT_TIMER; MAX_RT and its override.
    assert_eq!(!seen, 0x0f80_0000_0000_0073);
}

#[test]
fn opt0_largest_window() {
    let o = Opt0 {
        rcv_bufsiz: Opt0::MAX_RCV_BUFSIZ,
        ..Opt0::default()
    };
    assert_eq!(o.to_bits(), 0x003f_f000);
    assert_eq!(Opt0::from_bits(u64::MAX).rcv_bufsiz, Opt0::MAX_RCV_BUFSIZ);
}

#[test]
fn opt0_round_trips() {
    let mut r = Rng::new(0x0b70);
    for _ in 0..ROUNDS {
        let v = r.u64();
        let o = Opt0::from_bits(v);
        assert_eq!(o.to_bits(), v & !0x0f80_0000_0000_0073);
        assert_eq!(Opt0::from_bits(o.to_bits()), o);
    }
}

fn opt2() -> Opt2 {
    Opt2 {
        rss_queue: 0x155,
        rss_queue_valid: true,
        rx_coalesce: 3,
        cong_cntrl: 2,
        pace: 1,
        rx_fc_disable: false,
        rx_fc_ddp: true,
        tx_queue: 5,
        rx_channel: true,
        ecn: false,
        wnd_scale_en: true,
        tstamps_en: true,
        sack_en: true,
        iss_valid: true,
    }
}

#[test]
fn opt2_known_word_of_t5_and_t6() {
    // SACK 30, TSTAMPS 29, WND_SCALE 28, RX_CHANNEL 26, 5 at 23, RX_FC_DDP 21, 1 at 16,
    // 2 at 14, 3 at 12, QUEUE_VALID 10, 0x155; then OPT_2_VALID 31 and ISS 18.
    for chip in [Chip::T5, Chip::T6] {
        assert_eq!(opt2().to_bits(chip), 0xf6a5_b555);
        assert_eq!(Opt2::from_bits(0xf6a5_b555, chip), opt2());
    }
}

#[test]
fn opt2_known_word_of_t4() {
    // No OPT_2_VALID; valid bits 11, 18, 19 and 22 instead, and no ISS.
    assert_eq!(opt2().to_bits(Chip::T4), 0x76ed_bd55);
    let want = Opt2 {
        iss_valid: false,
        ..opt2()
    };
    assert_eq!(Opt2::from_bits(0x76ed_bd55, Chip::T4), want);
}

#[test]
fn opt2_valid_bits_are_always_there() {
    for chip in CHIPS {
        assert_eq!(Opt2::default().to_bits(chip), opt2_valid(chip));
        assert_eq!(Opt2::from_bits(opt2_valid(chip), chip), Opt2::default());
    }
}

#[test]
fn opt2_iss_is_t5s_and_t6s() {
    let o = Opt2 {
        iss_valid: true,
        ..Opt2::default()
    };
    assert_eq!(
        CHIPS.map(|c| o.to_bits(c)),
        [T4_VALID, T5_VALID | 1 << 18, T5_VALID | 1 << 18]
    );
    // On T4 that bit says that the congestion control counts.
    assert!(!Opt2::from_bits(1 << 18, Chip::T4).iss_valid);
    assert!(Opt2::from_bits(1 << 18, Chip::T5).iss_valid);
}

#[test]
fn opt2_fields_fill_their_bits_and_no_others() {
    let no = Opt2::default();
    let each = [
        (
            Opt2 {
                rss_queue: 0xffff,
                ..no
            },
            0,
            10,
        ),
        (
            Opt2 {
                rss_queue_valid: true,
                ..no
            },
            10,
            1,
        ),
        (
            Opt2 {
                rx_coalesce: 0xff,
                ..no
            },
            12,
            2,
        ),
        (
            Opt2 {
                cong_cntrl: 0xff,
                ..no
            },
            14,
            2,
        ),
        (Opt2 { pace: 0xff, ..no }, 16, 2),
        (
            Opt2 {
                rx_fc_disable: true,
                ..no
            },
            20,
            1,
        ),
        (
            Opt2 {
                rx_fc_ddp: true,
                ..no
            },
            21,
            1,
        ),
        (
            Opt2 {
                tx_queue: 0xff,
                ..no
            },
            23,
            3,
        ),
        (
            Opt2 {
                rx_channel: true,
                ..no
            },
            26,
            1,
        ),
        (Opt2 { ecn: true, ..no }, 27, 1),
        (
            Opt2 {
                wnd_scale_en: true,
                ..no
            },
            28,
            1,
        ),
        (
            Opt2 {
                tstamps_en: true,
                ..no
            },
            29,
            1,
        ),
        (
            Opt2 {
                sack_en: true,
                ..no
            },
            30,
            1,
        ),
    ];
    for chip in CHIPS {
        let valid = opt2_valid(chip);
        let mut seen = 0;
        for (o, shift, width) in each {
            let want = ((1u32 << width) - 1) << shift;
            assert_eq!(o.to_bits(chip), want | valid, "{o:?}");
            assert_eq!(Opt2::from_bits(want, chip).to_bits(chip), want | valid);
            assert_eq!(seen & want, 0, "two fields in one place");
            seen |= want;
        }
        assert_eq!(seen & valid, 0);
    }
}

#[test]
fn opt2_round_trips() {
    let mut r = Rng::new(0x0b72);
    for _ in 0..ROUNDS {
        let v = r.u32();
        for chip in CHIPS {
            let o = Opt2::from_bits(v, chip);
            assert_eq!(Opt2::from_bits(o.to_bits(chip), chip), o);
            // Bits 11, 18, 19, 22 and 31 are valid bits on the one or the other.
            let fields = !(T4_VALID | T5_VALID);
            assert_eq!(o.to_bits(chip) & fields, v & fields);
        }
    }
}

#[test]
fn tcp_opt_known_half_word() {
    let o = TcpOpt {
        wscale_ok: true,
        sack: false,
        tstamp: true,
        snd_wscale: 6,
        mss_idx: 0xb,
    };
    assert_eq!(o.to_bits(), 0xb6a0);
    assert_eq!(TcpOpt::from_bits(0xb6a0), o);
}

#[test]
fn tcp_opt_fields_fill_their_bits_and_no_others() {
    let no = TcpOpt::default();
    assert_eq!(no.to_bits(), 0);
    assert_eq!(
        TcpOpt {
            wscale_ok: true,
            ..no
        }
        .to_bits(),
        1 << 5
    );
    assert_eq!(TcpOpt { sack: true, ..no }.to_bits(), 1 << 6);
    assert_eq!(TcpOpt { tstamp: true, ..no }.to_bits(), 1 << 7);
    assert_eq!(
        TcpOpt {
            snd_wscale: 0xff,
            ..no
        }
        .to_bits(),
        0x0f00
    );
    assert_eq!(
        TcpOpt {
            mss_idx: 0xff,
            ..no
        }
        .to_bits(),
        0xf000
    );
}

#[test]
fn tcp_opt_of_every_half_word() {
    for v in 0..=u16::MAX {
        assert_eq!(TcpOpt::from_bits(v).to_bits(), v & 0xffe0);
    }
}
