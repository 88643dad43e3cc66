//! Regular expressions for `test`, `match`, `capture`, `scan`, `split`, `sub` and `gsub`, which the prelude makes of one function.

use jaq_core::{Error, ValR, ValT as _};
use jaq_json::Val;
use regex_lite::{Captures, Regex, RegexBuilder};

/// What to give: the matches, what stands between them, or both in turn (beginning and ending with what stands between).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Matches,
    Rest,
    Both,
}

/// jq's flags: `g` all matches, `n` no empty ones, `i` any case, `x` extended, `s` `.` is any, `l` longest, `p` both of `s` and
/// lines.
struct Flags {
    global: bool,
    no_empty: bool,
    regex: Regex,
}

impl Flags {
    fn read(expression: &str, flags: &str) -> Result<Self, Error<Val>> {
        let mut builder = RegexBuilder::new(expression);
        let (mut global, mut no_empty) = (false, false);
        for flag in flags.chars() {
            match flag {
                'g' => global = true,
                'n' => no_empty = true,
                'i' => drop(builder.case_insensitive(true)),
                'x' => drop(builder.ignore_whitespace(true)),
                's' => drop(builder.dot_matches_new_line(true)),
                'm' => drop(builder.multi_line(true)),
                'p' => drop(builder.dot_matches_new_line(true).multi_line(true)),
                'l' => drop(builder.swap_greed(true)),
                other => return Err(Error::str(format_args!("{flags:?}: there is no flag {other:?}"))),
            }
        }
        let regex = builder
            .build()
            .map_err(|error| Error::str(format_args!("{expression:?} is no regular expression: {error}")))?;
        Ok(Self { global, no_empty, regex })
    }
}

/// A list of what is wanted: a match is a list of objects (the whole, then each group), the rest is strings.
pub(crate) fn apply(text: &str, expression: &str, flags: &str, want: Want) -> ValR<Val> {
    let Flags { global, no_empty, regex } = Flags::read(expression, flags)?;
    let mut parts: Vec<Val> = Vec::new();
    let mut places = Places { text, byte: 0, letter: 0 };
    let mut rest_from = 0;
    for captures in regex.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        if no_empty && whole.is_empty() {
            continue;
        }
        if want != Want::Matches {
            parts.push(Val::from(text[rest_from..whole.start()].to_owned()));
            rest_from = whole.end();
        }
        if want != Want::Rest {
            parts.push(describe(&captures, whole.start(), &regex, &mut places)?);
        }
        if !global {
            break;
        }
    }
    if want != Want::Matches {
        parts.push(Val::from(text[rest_from..].to_owned()));
    }
    Ok(parts.into_iter().collect())
}

fn describe(captures: &Captures<'_>, from: usize, regex: &Regex, places: &mut Places<'_>) -> ValR<Val> {
    let start = places.letters_to(from);
    let describe_group = |(group, name): (Option<regex_lite::Match<'_>>, Option<&str>)| {
        // A group that took no part stands at -1, as in jq.
        let (offset, length, string) = match group {
            // Groups may stand before others that end earlier, so each is counted from the match's start.
            Some(group) => {
                let before = places.text[from..group.start()].chars().count();
                let length = group.as_str().chars().count();
                ((start + before) as isize, length as isize, Val::from(group.as_str().to_owned()))
            }
            None => (-1, 0, Val::Null),
        };
        let fields = [("offset", Val::from(offset)), ("length", Val::from(length)), ("string", string)];
        let name = name.map(|name| ("name", Val::from(name.to_owned())));
        Val::from_map(fields.into_iter().chain(name).map(|(key, value)| (Val::from(key.to_owned()), value)))
    };
    captures.iter().zip(regex.capture_names()).map(describe_group).collect()
}

/// Counts letters up to a byte, going on from the last count: matches come in order.
struct Places<'a> {
    text: &'a str,
    byte: usize,
    letter: usize,
}

impl Places<'_> {
    fn letters_to(&mut self, byte: usize) -> usize {
        self.letter += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.letter
    }
}
