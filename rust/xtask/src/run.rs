//! Starting other programs, behind a trait so that tests can stand in for the machine.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// One program to start.
#[derive(Clone, Debug, Default)]
pub struct Cmd {
    /// Name or path of the program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set for it; `None` removes one.
    pub env: Vec<(String, Option<OsString>)>,
    /// Folder it starts in, if not the current one.
    pub dir: Option<PathBuf>,
}

impl Cmd {
    /// A command with no arguments yet.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            ..Self::default()
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), Some(value.into())));
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn unset(mut self, key: &str) -> Self {
        self.env.push((key.into(), None));
        self
    }

    /// Sets the folder it starts in.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The command as one line, for messages and for tests.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        // `cargo run` points this at its own toolchain's libraries; other compilers must not see it.
        command.env_remove("LD_LIBRARY_PATH");
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// What a finished program left.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Who starts programs.
pub trait Runner: Sync {
    /// Runs to the end and keeps what it prints.
    ///
    /// # Errors
    /// The program cannot be started at all.
    fn output(&self, cmd: &Cmd) -> Result<Output>;

    /// Runs to the end with the terminal as it is; says whether it exited with 0.
    ///
    /// # Errors
    /// The program cannot be started at all.
    fn show(&self, cmd: &Cmd) -> Result<bool>;

    /// As [`Runner::show`], and hands each line of standard output over as it comes.
    ///
    /// # Errors
    /// The program cannot be started, or its output cannot be read.
    fn lines(&self, cmd: &Cmd, each: &mut dyn FnMut(&str)) -> Result<bool>;
}

/// The machine itself.
pub struct Real;

fn cannot_start(cmd: &Cmd, why: &std::io::Error) -> String {
    format!("cannot start {}: {why}", cmd.program.to_string_lossy())
}

impl Runner for Real {
    fn output(&self, cmd: &Cmd) -> Result<Output> {
        let out = cmd
            .command()
            .stdin(Stdio::null())
            .output()
            .map_err(|e| cannot_start(cmd, &e))?;
        Ok(Output {
            ok: out.status.success(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        })
    }

    fn show(&self, cmd: &Cmd) -> Result<bool> {
        let status = cmd.command().status().map_err(|e| cannot_start(cmd, &e))?;
        Ok(status.success())
    }

    fn lines(&self, cmd: &Cmd, each: &mut dyn FnMut(&str)) -> Result<bool> {
        let mut child = cmd
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| cannot_start(cmd, &e))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.map_err(|e| format!("reading from {}: {e}", cmd.line()))?;
                each(&String::from_utf8_lossy(&line));
            }
        }
        Ok(child
            .wait()
            .map_err(|e| format!("waiting for {}: {e}", cmd.line()))?
            .success())
    }
}

/// Runs a command whose success is needed; what it printed becomes the message if it fails.
///
/// # Errors
/// The program cannot be started or exits with other than 0.
pub fn need(runner: &dyn Runner, cmd: &Cmd, what: &str) -> Result<Output> {
    let out = runner.output(cmd)?;
    if out.ok {
        return Ok(out);
    }
    let said = if out.stderr.trim().is_empty() {
        out.stdout.trim()
    } else {
        out.stderr.trim()
    };
    Err(format!("{what} failed: {}\n{said}", cmd.line()))
}
