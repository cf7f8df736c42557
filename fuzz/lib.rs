//! What the fuzz targets have in common.

/// A message that is shown to a person: no control character of hostile input
/// reaches a terminal or breaks a log's line, and its length has an end.
///
/// # Panics
/// When it is not so.
pub fn assert_presentable(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(message.len() < 8 * 1024, "{} bytes", message.len());
}
