//! What a command printed.

use std::process::Output;

/// Both streams of a command that ended with this code.
#[track_caller]
pub(crate) fn printed(output: &Output, code: i32) -> String {
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{all}");
    all
}
