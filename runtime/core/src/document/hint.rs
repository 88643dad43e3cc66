//! "Did you mean ...?"

/// Longest name that is compared; longer ones are nobody's typing mistake.
const MAX_COMPARED: usize = 64;

/// The nearest of `known` to `word`, if one is near enough to be what was meant: a third of its letters may differ,
/// and a neighbouring pair that changed places counts as one.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|name| *name != word)
        .filter_map(|name| Some((distance(word, name, bound)?, name)))
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment distance, unless it is over `bound`.
fn distance(a: &str, b: &str, bound: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    if a.len().max(b.len()) > MAX_COMPARED || a.len().abs_diff(b.len()) > bound {
        return None;
    }
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    Some(last[b.len()]).filter(|distance| *distance <= bound)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_mistake_finds_what_was_meant_and_another_word_finds_nothing() {
        let known = ["fetch", "filter", "report"];
        assert_eq!(nearest("fecth", known), Some("fetch"));
        assert_eq!(nearest("Report", known), Some("report"));
        assert_eq!(nearest("filters", known), Some("filter"));
        assert_eq!(nearest("publish", known), None);
        assert_eq!(nearest("", known), None);
    }
}
