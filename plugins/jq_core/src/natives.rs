//! Native functions, besides jaq's basic ones: text formats, regular expressions, mathematics and dates.
//!
//! jaq has such functions too, but only all of them at once, with the clock, the environment and a database of time zones; these
//! are what a pure filter needs, at a tenth of the size. Regular expressions are those of regex-lite: linear time, no look-around.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jaq_core::native::{Fun, bome, run, v};
use jaq_core::{Bind, Cv, Error, RunPtr, ValR, data};
use jaq_json::Val;
use jaq_std::ValT as _;

use crate::{dates, regex};

type Data = data::JustLut<Val>;
type Native = (&'static str, Box<[Bind]>, RunPtr<Data>);

/// All functions of this file.
pub(crate) fn natives() -> impl Iterator<Item = Fun<Data>> {
    formats()
        .into_iter()
        .chain(regular_expressions())
        .chain(mathematics())
        .chain(date_functions())
        .map(run::<Data>)
}

/// The text of a string.
pub(crate) fn text(value: &Val) -> Result<&str, Error<Val>> {
    match value {
        Val::TStr(bytes) => std::str::from_utf8(bytes).map_err(Error::str),
        _ => Err(Error::typ(value.clone(), "string")),
    }
}

fn number(value: &Val) -> Result<f64, Error<Val>> {
    value.as_f64().ok_or_else(|| Error::typ(value.clone(), "number"))
}

/// A function of a string to a string.
fn of_text(cv: &Cv<'_, Data>, function: impl FnOnce(&str) -> String) -> ValR<Val> {
    text(&cv.1).map(|text| Val::from(function(text)))
}

fn formats() -> Vec<Native> {
    vec![
        ("escape_html", v(0), |cv| bome(of_text(&cv, escape_html))),
        ("encode_uri", v(0), |cv| bome(of_text(&cv, encode_uri))),
        ("decode_uri", v(0), |cv| bome(text(&cv.1).and_then(|text| decode_uri(text).map(Val::from)))),
        ("encode_base64", v(0), |cv| bome(of_text(&cv, |text| BASE64.encode(text)))),
        ("decode_base64", v(0), |cv| {
            bome(text(&cv.1).and_then(|text| {
                let padded = text.trim_end_matches('=');
                let bytes = BASE64_UNPADDED.decode(padded).map_err(Error::str)?;
                Ok(Val::from(String::from_utf8_lossy(&bytes).into_owned()))
            }))
        }),
    ]
}

/// Padding is taken off before, so that text is read with and without it, as jq does.
const BASE64_UNPADDED: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD_NO_PAD;

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn encode_uri(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend([
                '%',
                char::from(DIGITS[usize::from(byte >> 4)]),
                char::from(DIGITS[usize::from(byte & 15)]),
            ]);
        }
    }
    encoded
}

fn decode_uri(text: &str) -> Result<String, Error<Val>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| Error::str(format_args!("{text:?} is not percent-encoded")))?);
        rest = &rest[2..];
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn regular_expressions() -> Vec<Native> {
    fn apply(mut cv: Cv<'_, Data>, want: regex::Want) -> ValR<Val> {
        let flags = cv.0.pop_var();
        let expression = cv.0.pop_var();
        regex::apply(text(&cv.1)?, text(&expression)?, text(&flags)?, want)
    }
    vec![
        ("matches", v(2), |cv| bome(apply(cv, regex::Want::Matches))),
        ("split_matches", v(2), |cv| bome(apply(cv, regex::Want::Both))),
        ("split_", v(2), |cv| bome(apply(cv, regex::Want::Rest))),
    ]
}

fn mathematics() -> Vec<Native> {
    macro_rules! of_one {
        ($name:literal, $function:expr) => {
            ($name, v(0), |cv| bome(number(&cv.1).map(|x| Val::from($function(x)))))
        };
    }
    macro_rules! of_two {
        ($name:literal, $function:expr) => {
            ($name, v(2), |mut cv| {
                let (y, x) = (cv.0.pop_var(), cv.0.pop_var());
                bome(number(&x).and_then(|x| Ok(Val::from($function(x, number(&y)?)))))
            })
        };
    }
    vec![
        of_one!("acos", f64::acos),
        of_one!("acosh", f64::acosh),
        of_one!("asin", f64::asin),
        of_one!("asinh", f64::asinh),
        of_one!("atan", f64::atan),
        of_one!("atanh", f64::atanh),
        of_one!("cbrt", f64::cbrt),
        of_one!("cos", f64::cos),
        of_one!("cosh", f64::cosh),
        of_one!("exp", f64::exp),
        of_one!("exp2", f64::exp2),
        of_one!("exp10", |x| 10f64.powf(x)),
        of_one!("expm1", f64::exp_m1),
        of_one!("fabs", f64::abs),
        of_one!("log", f64::ln),
        of_one!("log10", f64::log10),
        of_one!("log1p", f64::ln_1p),
        of_one!("log2", f64::log2),
        of_one!("nearbyint", f64::round_ties_even),
        of_one!("rint", f64::round_ties_even),
        of_one!("sin", f64::sin),
        of_one!("sinh", f64::sinh),
        of_one!("sqrt", f64::sqrt),
        of_one!("tan", f64::tan),
        of_one!("tanh", f64::tanh),
        of_one!("trunc", f64::trunc),
        of_two!("atan2", f64::atan2),
        of_two!("copysign", f64::copysign),
        of_two!("fmax", f64::max),
        of_two!("fmin", f64::min),
        of_two!("fmod", |x: f64, y: f64| x % y),
        of_two!("hypot", f64::hypot),
        of_two!("ldexp", |x: f64, y: f64| x * y.exp2()),
        of_two!("pow", f64::powf),
        ("modf", v(0), |cv| {
            bome(number(&cv.1).map(|x| [x.fract(), x.trunc()].into_iter().map(Val::from).collect()))
        }),
    ]
}

fn date_functions() -> Vec<Native> {
    vec![
        ("fromdateiso8601", v(0), |cv| bome(text(&cv.1).and_then(dates::from_rfc3339))),
        ("todateiso8601", v(0), |cv| {
            bome(dates::Moment::read(&cv.1).map(|moment| Val::from(moment.rfc3339())))
        }),
        ("gmtime", v(0), |cv| bome(dates::Moment::read(&cv.1).map(|moment| moment.broken_down()))),
        ("mktime", v(0), |cv| bome(dates::Moment::read_broken_down(&cv.1).map(|moment| moment.seconds()))),
        ("strftime", v(1), |mut cv| {
            let format = cv.0.pop_var();
            bome(dates::Moment::read(&cv.1).and_then(|moment| Ok(Val::from(moment.format(text(&format)?)?))))
        }),
        ("strptime", v(1), |mut cv| {
            let format = cv.0.pop_var();
            let moment = text(&cv.1).and_then(|date| dates::parse(date, text(&format)?));
            bome(moment.map(dates::Moment::broken_down))
        }),
    ]
}
