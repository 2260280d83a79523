//! A copy of a source tree that can be changed and brought back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Folders at the top that are no source: what was built, and the history.
const NOT_SOURCE: [&str; 2] = ["target", ".git"];

/// Makes `to` the same as `from`, but for `target` and `.git` at the top of either. Files that
/// are the same already are not touched, so that what was built from them stays good.
///
/// # Errors
/// A file or folder cannot be read, written or removed.
pub fn sync(from: &Path, to: &Path) -> Result<()> {
    folder(from, to, true)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> crate::Error {
    move |why| format!("cannot copy {}: {why}", path.display())
}

fn names(dir: &Path, top: bool) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let name = entry.map_err(failed(dir))?.file_name();
        if !(top && NOT_SOURCE.map(OsStr::new).contains(&name.as_os_str())) {
            found.insert(name.into());
        }
    }
    Ok(found)
}

fn folder(from: &Path, to: &Path, top: bool) -> Result<()> {
    if !to.is_dir() {
        remove(to)?;
        fs::create_dir_all(to).map_err(failed(to))?;
    }
    let wanted = names(from, top)?;
    for name in names(to, top)?.difference(&wanted) {
        remove(&to.join(name))?;
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            folder(&from, &to, false)?;
        } else {
            file(&from, &to)?;
        }
    }
    Ok(())
}

fn file(from: &Path, to: &Path) -> Result<()> {
    let want = fs::read(from).map_err(failed(from))?;
    if to.is_file() && fs::read(to).is_ok_and(|have| have == want) {
        return Ok(());
    }
    remove(to)?;
    fs::write(to, want).map_err(failed(to))?;
    let permissions = fs::metadata(from).map_err(failed(from))?.permissions();
    fs::set_permissions(to, permissions).map_err(failed(to))
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(what) if what.is_dir() => fs::remove_dir_all(path).map_err(failed(path)),
        Ok(_) => fs::remove_file(path).map_err(failed(path)),
        Err(_) => Ok(()),
    }
}
