//! `strftime`: POSIX's conversions that mean something in UTC and without a locale.

use std::fmt::Write as _;

use jaq_core::Error;
use jaq_json::Val;

use super::{Civil, MONTHS, Moment, WEEKDAYS};

impl Moment {
    /// # Errors
    /// For a conversion that does not exist.
    pub(crate) fn format(self, format: &str) -> Result<String, Error<Val>> {
        let mut text = String::with_capacity(format.len() * 2);
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            // Glibc's flags: `-` without padding, `0` and `_` with zeros or spaces.
            let mut conversion = letters.next();
            let mut padding = None;
            if let Some(flag @ ('-' | '0' | '_')) = conversion {
                padding = Some(flag);
                conversion = letters.next();
            }
            match conversion {
                Some(conversion) if self.convert(&mut text, conversion, padding) => {}
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(Error::str(format_args!("{format:?}: there is no conversion %{other}")));
                }
            }
        }
        Ok(text)
    }

    /// Writes one conversion; false if there is none of that letter.
    fn convert(self, text: &mut String, conversion: char, padding: Option<char>) -> bool {
        let civil = self.civil();
        let Civil { year, month, day, hour, minute, second, nanos } = civil;
        let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
        let mut padded = |number: i64, width: usize, usual: char| {
            let _ = match padding.unwrap_or(usual) {
                '-' => write!(text, "{number}"),
                '_' | ' ' => write!(text, "{number:width$}"),
                _ => write!(text, "{number:0width$}"),
            };
        };
        match conversion {
            'Y' => padded(year, 4, '0'),
            'C' => padded(year.div_euclid(100), 2, '0'),
            'y' => padded(year.rem_euclid(100), 2, '0'),
            'm' => padded(month, 2, '0'),
            'd' => padded(day, 2, '0'),
            'e' => padded(day, 2, ' '),
            'j' => padded(self.day_of_year() + 1, 3, '0'),
            'H' => padded(hour, 2, '0'),
            'k' => padded(hour, 2, ' '),
            'I' => padded(hour12, 2, '0'),
            'l' => padded(hour12, 2, ' '),
            'M' => padded(minute, 2, '0'),
            'S' => padded(second, 2, '0'),
            'f' => padded(nanos / 1000, 6, '0'),
            's' => padded(self.seconds, 1, '-'),
            'u' => padded((self.weekday() + 6) % 7 + 1, 1, '0'),
            'w' => padded(self.weekday(), 1, '0'),
            'U' => padded((self.day_of_year() + 7 - self.weekday()) / 7, 2, '0'),
            'W' => padded((self.day_of_year() + 7 - (self.weekday() + 6) % 7) / 7, 2, '0'),
            'G' => padded(self.iso_week().0, 4, '0'),
            'g' => padded(self.iso_week().0.rem_euclid(100), 2, '0'),
            'V' => padded(self.iso_week().1, 2, '0'),
            'a' => text.push_str(&WEEKDAYS[self.weekday() as usize][..3]),
            'A' => text.push_str(WEEKDAYS[self.weekday() as usize]),
            'b' | 'h' => text.push_str(&MONTHS[month as usize - 1][..3]),
            'B' => text.push_str(MONTHS[month as usize - 1]),
            'p' => text.push_str(if hour < 12 { "AM" } else { "PM" }),
            'P' => text.push_str(if hour < 12 { "am" } else { "pm" }),
            'Z' => text.push_str("UTC"),
            'z' => text.push_str("+0000"),
            'n' => text.push('\n'),
            't' => text.push('\t'),
            '%' => text.push('%'),
            composed => {
                let parts = match composed {
                    'F' => "%Y-%m-%d",
                    'T' | 'X' => "%H:%M:%S",
                    'R' => "%H:%M",
                    'r' => "%I:%M:%S %p",
                    'D' | 'x' => "%m/%d/%y",
                    'c' => "%a %b %e %H:%M:%S %Y",
                    _ => return false,
                };
                match self.format(parts) {
                    Ok(parts) => text.push_str(&parts),
                    Err(_) => return false,
                }
            }
        }
        true
    }

    /// ISO 8601's year and week: the week belongs to the year that its Thursday is in.
    fn iso_week(self) -> (i64, i64) {
        let from_monday = (self.weekday() + 6) % 7;
        let thursday = self.plus_seconds((3 - from_monday) * super::DAY_SECONDS);
        (thursday.civil().year, thursday.day_of_year() / 7 + 1)
    }
}
