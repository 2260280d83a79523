//! What a test does with ifconfig(8), arp(8), netstat(1) and sysctl(8).

use std::net::Ipv4Addr;

use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt};
use crate::net::inpcb::{self, Tuple};
use crate::net::{ifnet, k, route, tcp_subr, tcp_vars, toecore, vnet_by_id, vnet_id};
use crate::proc::{Errno, PcbInfo, SockAddr, Sys, VnetId};
use crate::{Api, sys};

/// One line of `ifconfig -a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfInfo {
    /// "cxl0"
    pub name: String,
    /// The stack it is in.
    pub vnet: VnetId,
    /// IFF_UP.
    pub up: bool,
    /// IFCAP_TOE4 is enabled.
    pub toe: bool,
    /// Bytes.
    pub mtu: u32,
    /// First IPv4 address.
    pub addr: Option<Ipv4Addr>,
    /// Link-level address.
    pub mac: [u8; 6],
    /// Frames passed up to the host stack, which takes none.
    pub frames_in: u64,
}

fn find(name: &str) -> Sys<Kp<sys::ifnet>> {
    ifnet::by_name(name).ok_or(Errno::ENXIO)
}

fn ifreq() -> sys::ifreq {
    // SAFETY: plain C data.
    unsafe { std::mem::zeroed() }
}

fn set_up(mut ifp: Kp<sys::ifnet>, up: bool) -> Sys<()> {
    let was = ifp.if_flags as u32 & sys::IFF_UP != 0;
    if was == up {
        return Ok(());
    }
    let flag = sys::IFF_UP as i32;
    ifp.if_flags = if up {
        ifp.if_flags | flag
    } else {
        ifp.if_flags & !flag
    };
    let mut ifr = ifreq();
    Errno::check(ifnet::ioctl(
        ifp,
        ifnet::SIOCSIFFLAGS,
        (&raw mut ifr).cast(),
    ))?;
    let ev = if up {
        sys::IFNET_EVENT_UP
    } else {
        sys::IFNET_EVENT_DOWN
    };
    k::event2("ifnet_event", ifp.addr(), ev as usize);
    Ok(())
}

/// SIOCSIFCAP: `ifconfig if [-]toe`.
fn set_toe(ifp: Kp<sys::ifnet>, on: bool) -> Sys<()> {
    let want = if on {
        ifp.if_capenable | (ifp.if_capabilities & route::IFCAP_TOE)
    } else {
        ifp.if_capenable & !route::IFCAP_TOE
    };
    if on && ifp.if_capabilities & route::IFCAP_TOE == 0 {
        return Err(Errno::EINVAL);
    }
    let mut ifr = ifreq();
    ifr.ifr_ifru.ifru_cap = [want, 0];
    Errno::check(ifnet::ioctl(ifp, ifnet::SIOCSIFCAP, (&raw mut ifr).cast()))
}

fn parse_cidr(cidr: &str) -> Sys<ifnet::Addr> {
    let (ip, bits) = cidr.split_once('/').ok_or(Errno::EINVAL)?;
    let ip: Ipv4Addr = ip.parse().map_err(|_| Errno::EINVAL)?;
    let bits: u32 = bits.parse().map_err(|_| Errno::EINVAL)?;
    if bits == 0 || bits > 32 {
        return Err(Errno::EINVAL);
    }
    let mask = (u32::MAX << (32 - bits)).to_be();
    Ok(ifnet::Addr {
        ip: u32::from_ne_bytes(ip.octets()),
        mask,
    })
}

fn ip_of(s_addr: u32) -> Ipv4Addr {
    Ipv4Addr::from(s_addr.to_ne_bytes())
}

impl Api {
    /// `ifconfig <ifname> vnet <vnet> inet <cidr> up [toe | -toe]`; `cidr` as "10.0.0.1/24".
    ///
    /// # Errors
    /// ENXIO: no such interface; EINVAL: bad address, or TOE is not among its capabilities; what the
    /// driver's ioctl says (EAGAIN: no TOE driver).
    pub fn ifconfig(&self, ifname: &str, cidr: &str, vnet: VnetId, toe: bool) -> Sys<()> {
        let (ifname, cidr) = (ifname.to_string(), cidr.to_string());
        self.exec(move || {
            let addr = parse_cidr(&cidr)?;
            let mut ifp = find(&ifname)?;
            let v = vnet_by_id(vnet);
            if !std::ptr::eq(ifp.if_vnet, v) {
                ifp.if_vnet = v;
            }
            ifnet::set_addr(ifp, addr);
            set_up(ifp, true)?;
            let is_on = ifp.if_capenable & route::IFCAP_TOE4 != 0;
            if is_on != toe {
                set_toe(ifp, toe)
            } else {
                Ok(())
            }
        })
    }

    /// `ifconfig <ifname> [-]toe`.
    ///
    /// # Errors
    /// As [`Api::ifconfig`].
    pub fn ifconfig_toe(&self, ifname: &str, on: bool) -> Sys<()> {
        let ifname = ifname.to_string();
        self.exec(move || set_toe(find(&ifname)?, on))
    }

    /// `ifconfig <ifname> mtu <mtu>`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ifconfig_mtu(&self, ifname: &str, mtu: u32) -> Sys<()> {
        let ifname = ifname.to_string();
        self.exec(move || {
            let mut ifr = ifreq();
            ifr.ifr_ifru.ifru_mtu = mtu as i32;
            Errno::check(ifnet::ioctl(
                find(&ifname)?,
                ifnet::SIOCSIFMTU,
                (&raw mut ifr).cast(),
            ))
        })
    }

    /// `ifconfig <ifname> up` or `down`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ifconfig_up(&self, ifname: &str, up: bool) -> Sys<()> {
        let ifname = ifname.to_string();
        self.exec(move || set_up(find(&ifname)?, up))
    }

    /// `ifconfig -a`, without the loopbacks.
    #[must_use]
    pub fn ifnets(&self) -> Vec<IfInfo> {
        let info = |i: Kp<sys::ifnet>| IfInfo {
            name: ifnet::name(i),
            vnet: vnet_id(i.if_vnet),
            up: i.if_flags as u32 & sys::IFF_UP != 0,
            toe: i.if_capenable & route::IFCAP_TOE4 != 0,
            mtu: i.if_mtu,
            addr: ifnet::addrs(i).first().map(|a| ip_of(a.ip)),
            mac: ifnet::mac(i),
            frames_in: ifnet::frames_in(i),
        };
        ifnet::all()
            .into_iter()
            .filter(|i| i.if_flags as u32 & sys::IFF_LOOPBACK == 0)
            .map(info)
            .collect()
    }

    /// While `on`, neighbours of the interface are not resolved at once: toe_l2_resolve answers
    /// EWOULDBLOCK until [`Api::l2_answer`].
    ///
    /// # Panics
    /// For an unknown interface: a mistake of the test.
    pub fn l2_hold(&self, ifname: &str, on: bool) {
        toecore::l2_hold(find(ifname).expect("an interface"), on);
    }

    /// Resolves `ip` for whoever waits (`tod_l2_update`), or lets its entry time out.
    ///
    /// # Panics
    /// For an unknown interface: a mistake of the test.
    pub fn l2_answer(&self, ifname: &str, ip: Ipv4Addr, found: bool) {
        let ifp = find(ifname).expect("an interface");
        self.exec(move || toecore::l2_answer(ifp, u32::from_ne_bytes(ip.octets()), found));
    }

    /// `netstat -an -p tcp` over all stacks.
    #[must_use]
    pub fn netstat(&self) -> Vec<PcbInfo> {
        let one = |inp: Kp<sys::inpcb>| {
            let t = Tuple::of(inp);
            let tp = inp.tp();
            let so = Kp::<sys::socket>::opt(inp.inp_socket).filter(|s| !s.listening());
            let pair =
                |f: fn(&sys::sockbuf) -> u32| so.map_or((0, 0), |s| (f(&s.rcv()), f(&s.snd())));
            PcbInfo {
                vnet: vnet_id(inpcb::vnet_of(inp)),
                local: SockAddr {
                    ip: ip_of(t.laddr),
                    port: u16::from_be(t.lport),
                },
                foreign: SockAddr {
                    ip: ip_of(t.faddr),
                    port: u16::from_be(t.fport),
                },
                state: tcp_subr::STATES[tp.st() as usize],
                offloaded: tp.toe(),
                has_socket: !inp.inp_socket.is_null(),
                used: pair(|s| s.sb_ccc),
                hiwat: pair(|s| s.sb_hiwat),
            }
        };
        inpcb::all().into_iter().map(one).collect()
    }

    /// Sets a variable of a stack's TCP by its C name, "tcp_sendspace".
    ///
    /// # Errors
    /// ENOENT.
    pub fn set_vnet_int(&self, vnet: VnetId, name: &str, value: i32) -> Sys<()> {
        tcp_vars::set_by_name(vnet_by_id(vnet), name, value)
    }

    /// Memory runs short: fires `vm_lowmem` as the page daemon does.
    pub fn vm_lowmem(&self) {
        self.exec(|| k::event("vm_lowmem", 0));
    }

    /// SYNs between their arrival and the end of the handshake.
    #[must_use]
    pub fn syncache_count(&self) -> usize {
        crate::net::syncache::count()
    }
}
