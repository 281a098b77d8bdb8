//! System calls for replacing the running program, for which there is no safe interface.
#![expect(
    unsafe_code,
    reason = "execve, signal masks and descriptors known by number only have no safe form"
)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

const HANDLED: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks the handled signals in this thread, in threads started from it, and in a program that replaces
/// this one; [`unblock_signals`] ends that.
pub(crate) fn block_signals() {
    mask_signals(libc::SIG_BLOCK);
}

pub(crate) fn unblock_signals() {
    mask_signals(libc::SIG_UNBLOCK);
}

fn mask_signals(how: libc::c_int) {
    // SAFETY: the set is initialised by sigemptyset before it is used, and lives on this stack.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in HANDLED {
            libc::sigaddset(&raw mut set, signal);
        }
        // Cannot fail with a valid `how`.
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// Makes a write above the limit for file sizes (`ulimit -f`, `LimitFSIZE=`) fail: by default the kernel kills the process.
pub(crate) fn survive_file_size_limit() {
    // SAFETY: ignores a signal that nothing in this process handles.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Replaces this process's program. Returns only if that fails.
///
/// Not `Command::exec`, which resets the handling of SIGPIPE even if it fails.
pub(super) fn execve(
    program: &Path,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
) -> io::Error {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        text(name)
    };
    let prepared = || {
        let arguments = arguments.into_iter().map(text).collect::<io::Result<Vec<_>>>()?;
        let environment = environment.into_iter().map(pair).collect::<io::Result<Vec<_>>>()?;
        io::Result::Ok((text(program.into())?, arguments, environment))
    };
    let (program, arguments, environment) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end with a null pointer, and what they point to outlives the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes ownership of a descriptor that is known by number.
///
/// # Safety
///
/// The number must come from the previous program or from systemd, and may be taken only once.
pub(crate) unsafe fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD uses only the number.
    if number <= libc::STDERR_FILENO || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("descriptor {number} is not open")));
    }
    // SAFETY: it is open, and by this function's contract it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
