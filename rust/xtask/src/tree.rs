//! Where things lie in the source tree.

use std::path::{Path, PathBuf};

use crate::Result;

/// A FreeBSD release the modules are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// "14" or "15"; names the folders under `target/hdr` and `target/kmod`.
    pub name: &'static str,
    /// `__FreeBSD_version` given to the C compiler; the packaged headers carry none.
    pub version: u32,
    /// Version of the PyPI package `ziglang` whose wheel carries this release's headers.
    pub wheel_version: &'static str,
    /// The wheel's SHA-256.
    pub wheel_sha256: &'static str,
}

/// The releases of a stand-in build.
pub const RELEASES: [Release; 2] = [
    Release {
        name: "14",
        version: 1_403_000,
        wheel_version: "0.15.2",
        wheel_sha256: "806316453d1ede7174ed3fefb8e5348154629089c3bb5fe812dfd0e172fac130",
    },
    Release {
        name: "15",
        version: 1_500_068,
        wheel_version: "0.17.0",
        wheel_sha256: "97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b",
    },
];

/// The two halves of a release's installed headers, most specific first.
pub const HEADER_PARTS: [&str; 2] = ["x86_64-freebsd-none", "generic-freebsd"];

/// The source tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its top folder.
    pub root: PathBuf,
}

impl Tree {
    /// The tree this program was started in.
    ///
    /// # Errors
    /// Neither cargo nor the current folder says where it is.
    pub fn find() -> Result<Self> {
        let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => std::env::current_dir().map_err(|e| format!("no current folder: {e}"))?,
        };
        start
            .ancestors()
            .find(|dir| dir.join("rust/xtask/Cargo.toml").is_file())
            .map(|root| Self { root: root.into() })
            .ok_or_else(|| format!("{} is not inside toehold's source tree", start.display()))
    }

    /// A path below the top folder.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// What is built and fetched goes here.
    pub fn target(&self) -> PathBuf {
        self.at("target")
    }

    /// Where downloaded wheels are kept.
    pub fn wheels(&self) -> PathBuf {
        self.target().join("wheels")
    }

    /// Headers of one release: holds the folders of [`HEADER_PARTS`].
    pub fn headers(&self, release: Release) -> PathBuf {
        self.target().join("hdr").join(release.name)
    }

    /// Concurrency Kit's headers, apart from the host's libc.
    pub fn ck(&self) -> PathBuf {
        self.target().join("hdr/ck")
    }

    /// Where a release's modules are put.
    pub fn modules(&self, release: Release) -> PathBuf {
        self.target().join("kmod").join(release.name)
    }

    /// Option headers of a GENERIC kernel.
    pub fn opt(&self) -> PathBuf {
        self.at("sys/standin/opt")
    }
}

/// Paths of a folder's files with an extension, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).map_err(|e| format!("cannot list {}: {e}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension) && path.is_file())
        .collect();
    found.sort();
    Ok(found)
}
