//! What changes from run to run, replaced by a word: then output can be compared.

use regex_lite::Regex;
use std::sync::LazyLock;

static FILTERS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"sha256:[0-9a-f]{64}", "sha256:[DIGEST]"),
        (r"\b[0-9a-f]{64}\b", "[ID]"),
        (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+( ?(Z|[+-][0-9]{2}:?[0-9]{2}( UTC)?))?", "[TIME]"),
        (r"(About an? (minute|hour)|Less than a second|[0-9]+ (second|minute|hour)s?) ago", "[AGO]"),
        (r"Up (About an? (minute|hour)|Less than a second|[0-9]+ (second|minute|hour)s?)", "Up [TIME]"),
        (r"\b[0-9a-f]{12}\b", "[ID]"),
    ]
    .into_iter()
    .map(|(pattern, word)| (Regex::new(pattern).expect("a filter's pattern"), word))
    .collect()
});

/// Replace ids, digests, times and the environment's own paths.
pub(crate) fn stable(text: &str, base: &str) -> String {
    let mut text = text.replace(base, "[ENV]");
    for (pattern, word) in FILTERS.iter() {
        text = pattern.replace_all(&text, *word).into_owned();
    }
    text
}
