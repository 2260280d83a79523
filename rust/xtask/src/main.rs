//! `cargo run -p xtask -- <command>`; see `make help`.

use std::process::ExitCode;

use xtask::run::Real;
use xtask::tree::Tree;
use xtask::{Result, check, demo, generated, kmod, native, planted, setup, standin, tests};

fn dispatch(command: Option<&str>) -> Result<()> {
    let tree = Tree::find()?;
    match command {
        Some("setup") => setup::run(&tree, &Real),
        Some("kmod") => kmod::run(&tree, &Real),
        Some("shim") => kmod::shim_only(&tree, &Real),
        Some("check-standin") => standin::run(&tree, &Real),
        Some("generated") => generated::run(&tree, &Real),
        Some("native") => native::run(&tree, &Real),
        Some("symbols") => kmod::symbols(&tree, &Real),
        Some("test") => tests::run(&tree, &Real),
        Some("planted") => planted::run(&tree, &Real),
        Some("check") => check::run(&tree, &Real),
        Some("demo") => demo::run(&tree, &Real),
        Some("fmt") => check::fmt(&tree, &Real),
        Some(other) => Err(format!("no command `{other}`; `make help` lists them")),
        None => Err("a command is missing; `make help` lists them".into()),
    }
}

fn main() -> ExitCode {
    let arg = std::env::args().nth(1);
    match dispatch(arg.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("toehold: {message}");
            ExitCode::FAILURE
        }
    }
}
