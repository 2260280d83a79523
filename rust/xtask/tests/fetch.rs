//! `make -C sys/modules fetch`: what it checks, and what it says if it cannot.

mod common;

use common::Bench;
use xtask::generated::{self, Archive, locked};
use xtask::run::{Cmd, Output, Real, Runner, need};
use xtask::tree::Tree;

/// A copy of the script with one crate in its `distinfo`, and a folder that stands for the
/// registry.
struct Place(Bench);

impl Place {
    fn new() -> Self {
        let place = Self(Bench::new());
        let script = Tree::find().expect("tree").at("sys/modules/fetch.sh");
        std::fs::copy(script, place.at("fetch.sh")).expect("script");
        place.0.file("wool-1.0.0/src/lib.rs", "// wool\n");
        std::fs::create_dir_all(place.0.dir.join("registry/wool")).expect("folder");
        let tar = Cmd::new("tar")
            .args(["-czf", "registry/wool/wool-1.0.0.crate", "wool-1.0.0"])
            .dir(&place.0.dir);
        need(&Real, &tar, "packing").expect("archive");
        let path = place.at("registry/wool/wool-1.0.0.crate");
        let sum = need(&Real, &Cmd::new("sha256sum").arg(&path), "sum").expect("sum");
        let archive = Archive {
            size: std::fs::metadata(&path).expect("archive").len(),
            path: path.into(),
            name: "wool-1.0.0.crate".into(),
            sum: sum.stdout[..64].to_owned(),
        };
        place.0.file("distinfo", &generated::distinfo(&[archive]));
        place
    }

    fn at(&self, name: &str) -> String {
        self.0.dir.join(name).display().to_string()
    }

    fn fetch(&self) -> Output {
        let url = format!("file://{}", self.at("registry"));
        let cmd = Cmd::new("sh").args([self.at("fetch.sh"), self.at("crates"), url]);
        Real.output(&cmd).expect("sh")
    }

    #[track_caller]
    fn refused(&self, wanted: &[&str]) {
        let out = self.fetch();
        let again = format!("make -C {} fetch CRATES={}", self.at(""), self.at("crates"));
        let again = again.replace("/ fetch", " fetch");
        assert!(!out.ok, "{out:?}");
        for wanted in wanted.iter().chain([&again.as_str()]) {
            assert!(out.stderr.contains(wanted), "`{wanted}` in {}", out.stderr);
        }
        let made = self.at("crates/wool-1.0.0");
        assert!(!std::path::Path::new(&made).exists(), "{made}");
    }

    #[track_caller]
    fn done(&self) {
        let out = self.fetch();
        assert!(out.ok, "{out:?}");
        let source = std::fs::read_to_string(self.at("crates/wool-1.0.0/src/lib.rs"));
        assert_eq!(source.expect("source"), "// wool\n");
    }
}

#[test]
fn a_crate_is_downloaded_once_and_unpacked() {
    let place = Place::new();
    place.done();
    std::fs::remove_dir_all(place.at("registry")).expect("registry");
    place.0.file("crates/wool-1.0.0/src/lib.rs", "// spoilt\n");
    place.done();
}

#[test]
fn no_network_is_said_and_an_archive_brought_by_hand_will_do() {
    let place = Place::new();
    let (from, to) = (
        place.at("registry/wool/wool-1.0.0.crate"),
        place.at("crates/wool-1.0.0.crate"),
    );
    let kept = place.at("kept.crate");
    std::fs::rename(from, &kept).expect("archive");
    place.refused(&["cannot download file://", "put wool-1.0.0.crate of another"]);
    std::fs::copy(kept, to).expect("archive");
    place.done();
}

#[test]
fn another_archive_is_refused() {
    let place = Place::new();
    place
        .0
        .file("registry/wool/wool-1.0.0.crate", "something else");
    let wrong = ["has 14 bytes and SHA-256", "but distinfo says", "remove "];
    place.refused(&wrong);
    place.0.file("crates/wool-1.0.0.crate", "something else");
    place.refused(&wrong);
}

#[test]
fn what_cargo_unpacked_is_left_alone() {
    let place = Place::new();
    place.0.file("crates/wool-1.0.0/src/lib.rs", "// wool\n");
    std::fs::remove_dir_all(place.at("registry")).expect("registry");
    place.done();
}

#[test]
fn the_lock_file_says_which_archive() {
    let lock = "version = 4\n\n[[package]]\nname = \"spin-x\"\nversion = \"1.0.0\"\nchecksum = \"aa\"\n\n\
                [[package]]\nname = \"spin\"\nversion = \"0.10.1\"\nsource = \"registry\"\nchecksum = \"bb\"\n\n\
                [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
    assert_eq!(locked(lock, "spin"), Some(("0.10.1", "bb")));
    assert_eq!(locked(lock, "own"), None, "no crate of the registry");
    assert_eq!(locked(lock, "x"), None);
}
