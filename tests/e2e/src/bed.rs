//! A booted kernel with both modules loaded and both ports up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ukern::proc::VnetId;
use ukern::{Config, Kernel, Report};

/// Network stack of port 0.
pub const CLIENT: VnetId = 0;
/// Network stack of port 1: a jail's, or the host would talk to itself over lo0.
pub const SERVER: VnetId = 1;
/// Address of port 0.
pub const CLIENT_IP: &str = "10.0.0.1";
/// Address of port 1.
pub const SERVER_IP: &str = "10.0.0.2";

/// Root of toehold's sysctls.
pub const TOE: &str = "dev.t5nex.0.toe";

/// Folder with the modules: `TOEHOLD_KMOD`, or where `make kmod` puts them.
#[must_use]
pub fn kmod_dir() -> PathBuf {
    match std::env::var_os("TOEHOLD_KMOD") {
        Some(d) => PathBuf::from(d),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/kmod/15"),
    }
}

/// Path of a module.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn kmod(name: &str) -> String {
    let p = kmod_dir().join(format!("{name}.ko"));
    assert!(p.is_file(), "{} is missing: run make kmod", p.display());
    p.display().to_string()
}

/// The test bed.
pub struct Bed {
    /// The kernel.
    pub k: Kernel,
}

impl Bed {
    /// Boot, load, bring the ports up with TOE, switch zero copy on both ways.
    ///
    /// # Panics
    /// If any of it fails.
    #[must_use]
    pub fn up(seed: u64) -> Bed {
        Self::with(Config::seed(seed))
    }

    /// The same with another configuration of the kernel.
    ///
    /// # Panics
    /// If any of it fails.
    #[must_use]
    pub fn with(config: Config) -> Bed {
        Self::cards(config, 1)
    }

    /// The same with `n` adapters, of which the first has its addresses.
    ///
    /// # Panics
    /// If any of it fails.
    #[must_use]
    pub fn cards(config: Config, n: u32) -> Bed {
        let bed = Bed {
            k: ukern::boot(config),
        };
        bed.k.kenv("hw.t5sim.adapters", &n.to_string());
        bed.load("t5sim");
        bed.load("toehold");
        bed.ports(true);
        bed.set("ddp", 1);
        bed.set("tx_zcopy", 1);
        // However short they are.
        bed.set("tx_zcopy_min", 0);
        bed
    }

    /// Load a module.
    ///
    /// # Panics
    /// If the kernel refuses; shows what it said.
    pub fn load(&self, name: &str) {
        if let Err(e) = self.k.kldload(kmod(name)) {
            panic!("kldload {name}: errno {e}\n{}", self.k.console().join("\n"));
        }
    }

    /// Both ports with their addresses, TOE on or off.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn ports(&self, toe: bool) {
        self.k
            .ifconfig("cxl0", &format!("{CLIENT_IP}/24"), CLIENT, toe)
            .expect("ifconfig cxl0");
        self.k
            .ifconfig("cxl1", &format!("{SERVER_IP}/24"), SERVER, toe)
            .expect("ifconfig cxl1");
    }

    /// Set `dev.t5nex.0.toe.<name>`.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set(&self, name: &str, v: i64) {
        let r = self.k.sysctl_set(&format!("{TOE}.{name}"), v.to_string());
        assert!(r.is_ok(), "sysctl {TOE}.{name}={v}: {r:?}");
    }

    /// Set `dev.t5nex.0.sim.<name>`.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn sim(&self, name: &str, v: i64) {
        let name = format!("dev.t5nex.0.sim.{name}");
        let r = self.k.sysctl_set(&name, v.to_string());
        assert!(r.is_ok(), "sysctl {name}={v}: {r:?}");
    }

    /// Read `dev.t5nex.0.sim.<name>`.
    ///
    /// # Panics
    /// If there is no such number.
    #[must_use]
    pub fn sim_stat(&self, name: &str) -> u64 {
        let full = format!("dev.t5nex.0.sim.{name}");
        let v = self.k.sysctl_get(&full);
        match v.as_ref().ok().and_then(|v| v.as_u64()) {
            Some(n) => n,
            None => panic!("sysctl {full}: {v:?}"),
        }
    }

    /// Read `dev.t5nex.0.toe.stats.<name>`.
    ///
    /// # Panics
    /// If there is no such number.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let full = format!("{TOE}.stats.{name}");
        let v = self.k.sysctl_get(&full);
        match v.as_ref().ok().and_then(|v| v.as_u64()) {
            Some(n) => n,
            None => panic!("sysctl {full}: {v:?}"),
        }
    }

    /// All of toehold's statistics.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<String, u64> {
        let prefix = format!("{TOE}.stats.");
        self.k
            .sysctl_tree(&format!("{TOE}.stats"))
            .into_iter()
            .filter_map(|(n, v)| Some((n.strip_prefix(&prefix)?.to_string(), v.as_u64()?)))
            .collect()
    }

    /// Unload both modules and end the kernel; nothing may be left.
    ///
    /// # Panics
    /// If a module does not unload, or anything leaked.
    pub fn down(self) -> Report {
        // Let 2MSL pass, so that the connections are gone from the kernel as well.
        self.settle();
        // No connection, no next hop: an entry that stayed would never be given back.
        let l2t = ["l2t_size", "l2t_free"].map(|n| self.sim_stat(n));
        assert_eq!(l2t[0], l2t[1], "entries of the L2 table stay in use");
        self.k.kldunload("toehold").expect("kldunload toehold");
        self.k.kldunload("t5sim").expect("kldunload t5sim");
        self.k.shutdown()
    }

    /// Virtual time for timers and deferred work: more than 2MSL.
    pub fn settle(&self) {
        self.k.run_for(ukern::sched::SBT_1S * 90);
    }
}
