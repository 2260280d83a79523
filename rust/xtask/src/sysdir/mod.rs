//! A build against a FreeBSD source tree (`SYSDIR=`): what the tree is, the headers that a
//! kernel build would generate, and which symbols its kernel and modules define.

pub mod config;
pub mod generate;
pub mod symbols;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Result, inputs};
use config::Config;

/// A FreeBSD source tree and the kernel to build for.
#[derive(Clone, Debug)]
pub struct Source {
    /// The tree's `sys`, an absolute path.
    pub sysdir: PathBuf,
    /// `__FreeBSD_version` of `sys/param.h`.
    pub version: u32,
    /// REVISION of `conf/newvers.sh`, such as "12.1"; names the folder below `target/kmod`.
    pub release: String,
    /// What that kernel is made of; its devices are those of the configuration.
    pub config: Config,
    /// Build folder of a kernel whose own `opt_*.h` are taken.
    pub kernbuilddir: Option<PathBuf>,
}

/// What make was given about the tree.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// SYSDIR.
    pub sysdir: PathBuf,
    /// KERNBUILDDIR: the kernel's options come from there.
    pub kernbuilddir: Option<PathBuf>,
    /// KERNCONF: name of the kernel configuration; GENERIC if not given.
    pub kernconf: Option<String>,
    /// KERNOPTS: options set on top of it.
    pub kernopts: Vec<String>,
}

impl Given {
    /// From the environment; `None` without SYSDIR.
    ///
    /// # Errors
    /// Another variable is given and SYSDIR is not.
    pub fn read() -> Result<Option<Self>> {
        let text = |name: &str| inputs::given(name).map(|v| v.to_string_lossy().into_owned());
        let Some(sysdir) = inputs::given("SYSDIR") else {
            return match ["KERNBUILDDIR", "KERNCONF", "KERNOPTS"]
                .iter()
                .find(|name| inputs::given(name).is_some())
            {
                Some(name) => Err(format!("{name} is given without SYSDIR")),
                None => Ok(None),
            };
        };
        Ok(Some(Self {
            sysdir: sysdir.into(),
            kernbuilddir: inputs::given("KERNBUILDDIR").map(PathBuf::from),
            kernconf: text("KERNCONF"),
            kernopts: text("KERNOPTS")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        }))
    }
}

/// REVISION in the text of `conf/newvers.sh`.
pub fn revision(text: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("REVISION="))?
        .trim()
        .trim_matches('"');
    let good = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    good.then(|| value.to_owned())
}

impl Source {
    /// Looks at the tree and the kernel's configuration.
    ///
    /// # Errors
    /// SYSDIR is no FreeBSD tree, KERNBUILDDIR is no kernel's build folder, or the
    /// configuration cannot be read.
    pub fn open(given: &Given) -> Result<Self> {
        let version = inputs::check_sysdir(&given.sysdir)?;
        let absolute = |path: &Path| {
            std::fs::canonicalize(path).map_err(|e| format!("cannot open {}: {e}", path.display()))
        };
        let sysdir = absolute(&given.sysdir)?;
        let newvers = sysdir.join("conf/newvers.sh");
        let text = std::fs::read_to_string(&newvers)
            .map_err(|e| format!("cannot read {}: {e}", newvers.display()))?;
        let release =
            revision(&text).ok_or_else(|| format!("{} sets no REVISION", newvers.display()))?;
        let kernbuilddir = given.kernbuilddir.as_deref().map(absolute).transpose()?;
        if let Some(dir) = &kernbuilddir {
            if !dir.join("opt_global.h").is_file() {
                return Err(format!(
                    "KERNBUILDDIR={} is not the build folder of a kernel: opt_global.h is missing",
                    dir.display()
                ));
            }
            if !given.kernopts.is_empty() {
                return Err("KERNOPTS and KERNBUILDDIR both say what the options are".into());
            }
        }
        let name = given.kernconf.as_deref().unwrap_or("GENERIC");
        let mut config = Config::open(&sysdir, name, &given.kernopts)?;
        if let Some(dir) = &kernbuilddir {
            config.adopt(&sysdir, dir)?;
        }
        Ok(Self {
            sysdir,
            version,
            release,
            config,
            kernbuilddir,
        })
    }

    /// A path below `sys`.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.sysdir.join(path)
    }

    /// The compiler's arguments that differ from tree to tree: its target, and where the
    /// tree's headers are. `gen` holds what [`generate`] made. The tree's folders are system
    /// folders, for its headers do not compile without warnings at our level of them.
    pub fn flags(&self, generated: &Path) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec![
            format!("--target=x86_64-unknown-freebsd{}", self.release).into(),
            "-nostdinc".into(),
            "-DHAVE_KERNEL_OPTION_HEADERS".into(),
        ];
        for dir in [
            generated.to_path_buf(),
            self.sysdir.clone(),
            self.at("contrib/ck/include"),
            self.at("dev/cxgbe"),
        ] {
            flags.push("-isystem".into());
            flags.push(dir.into());
        }
        flags
    }
}
