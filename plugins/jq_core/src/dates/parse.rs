//! Text to moments: RFC 3339, and `strptime` by a format. A zone offset is applied: what comes out is UTC.

use jaq_core::{Error, ValR};
use jaq_json::Val;

use super::{Civil, MONTHS, Moment, WEEKDAYS};

/// `2015-03-05T23:51:47.5Z`, `2015-03-05T23:51:47+01:00` to seconds since 1970.
pub(crate) fn from_rfc3339(text: &str) -> ValR<Val> {
    let no_date =
        || Error::str(format_args!("{text:?} is no RFC 3339 date and time, such as 2015-03-05T23:51:47Z"));
    let mut reader = Reader { rest: text, parts: Parts::default() };
    let read = reader.follow("%Y-%m-%d").and_then(|()| {
        reader.rest.strip_prefix(['T', 't', ' ']).map(|rest| reader.rest = rest)?;
        reader.follow("%H:%M:%S")?;
        reader.fraction();
        reader.follow("%z")
    });
    match read {
        Some(()) if reader.rest.is_empty() => Ok(reader.parts.moment()?.seconds()),
        _ => Err(no_date()),
    }
}

/// Reads a text by a format of `strptime`.
pub(crate) fn parse(text: &str, format: &str) -> Result<Moment, Error<Val>> {
    let mut reader = Reader { rest: text, parts: Parts::default() };
    match reader.follow(format) {
        Some(()) if reader.rest.is_empty() => reader.parts.moment(),
        _ => Err(Error::str(format_args!("{text:?} is no date of the form {format:?}"))),
    }
}

/// What has been read so far.
#[derive(Default)]
struct Parts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i64,
    offset_seconds: i64,
    epoch: Option<i64>,
}

impl Parts {
    fn moment(&self) -> Result<Moment, Error<Val>> {
        if let Some(seconds) = self.epoch {
            return Ok(Moment { seconds, nanos: 0 });
        }
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        let (month, day) = match self.day_of_year {
            Some(_) => (1, 1),
            None => (self.month.unwrap_or(1), self.day.unwrap_or(1)),
        };
        let civil = Civil {
            year: self.year.unwrap_or(1900),
            month,
            day,
            hour,
            minute: self.minute,
            second: self.second,
            nanos: self.nanos,
        };
        let moment = civil.moment()?;
        if moment.civil().day != day {
            return Err(Error::str(format_args!("month {month} of {} has no day {day}", civil.year)));
        }
        let days = self.day_of_year.map_or(0, |day| day - 1);
        Ok(moment.plus_seconds(days * super::DAY_SECONDS - self.offset_seconds))
    }
}

struct Reader<'a> {
    rest: &'a str,
    parts: Parts,
}

impl Reader<'_> {
    /// Reads by a format; nothing when the text does not follow it.
    fn follow(&mut self, format: &str) -> Option<()> {
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter.is_whitespace() {
                self.rest = self.rest.trim_start();
            } else if letter == '%' {
                let conversion = letters.by_ref().find(|letter| !matches!(letter, '-' | '_' | '0'))?;
                self.convert(conversion)?;
            } else {
                self.rest = self.rest.strip_prefix(letter)?;
            }
        }
        Some(())
    }

    fn convert(&mut self, conversion: char) -> Option<()> {
        match conversion {
            'Y' => self.parts.year = Some(self.signed(4)?),
            'y' => {
                let year = self.number(2)?;
                // POSIX: 69 to 99 are of the last century.
                self.parts.year = Some(if year < 69 { 2000 + year } else { 1900 + year });
            }
            'm' => self.parts.month = Some(self.number(2)?),
            'd' | 'e' => self.parts.day = Some(self.number(2)?),
            'j' => self.parts.day_of_year = Some(self.number(3).filter(|day| (1..=366).contains(day))?),
            'H' | 'k' => self.parts.hour = self.number(2)?,
            'I' | 'l' => self.parts.hour = self.number(2).filter(|hour| (1..=12).contains(hour))?,
            'M' => self.parts.minute = self.number(2)?,
            'S' => self.parts.second = self.number(2)?,
            'f' => self.fraction_digits()?,
            's' => self.parts.epoch = Some(self.signed(12)?),
            'a' | 'A' => drop(self.name(&WEEKDAYS)?),
            'b' | 'B' | 'h' => self.parts.month = Some(self.name(&MONTHS)? + 1),
            'p' | 'P' => self.parts.afternoon = Some(self.name(&["AM", "PM"])? == 1),
            'u' | 'w' => drop(self.number(1)?),
            'U' | 'W' | 'V' => drop(self.number(2)?),
            'Z' => {
                let end =
                    self.rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..).filter(|_| end > 0)?;
            }
            'z' => self.parts.offset_seconds = self.offset()?,
            'F' => self.follow("%Y-%m-%d")?,
            'T' => self.follow("%H:%M:%S")?,
            'R' => self.follow("%H:%M")?,
            'r' => self.follow("%I:%M:%S %p")?,
            'D' => self.follow("%m/%d/%y")?,
            'c' => self.follow("%a %b %e %H:%M:%S %Y")?,
            'n' | 't' => self.rest = self.rest.trim_start(),
            '%' => self.rest = self.rest.strip_prefix('%')?,
            _ => return None,
        }
        Some(())
    }

    /// Up to so many digits, after white space.
    fn number(&mut self, most: usize) -> Option<i64> {
        self.rest = self.rest.trim_start();
        let end = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }

    fn signed(&mut self, most: usize) -> Option<i64> {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix('-') {
            Some(rest) => {
                self.rest = rest;
                self.number(most).map(|number| -number)
            }
            None => self.number(most),
        }
    }

    /// Which of the names, whole or its first three letters, in any case.
    fn name(&mut self, names: &[&str]) -> Option<i64> {
        let mut starts_with = |name: &str| {
            let matches = self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            if matches {
                self.rest = &self.rest[name.len()..];
            }
            matches
        };
        let place =
            names.iter().position(|name| starts_with(name) || starts_with(&name[..name.len().min(3)]))?;
        i64::try_from(place).ok()
    }

    /// `Z`, `+01:00`, `+0100`, `+01`.
    fn offset(&mut self) -> Option<i64> {
        if let Some(rest) = self.rest.strip_prefix(['Z', 'z']) {
            self.rest = rest;
            return Some(0);
        }
        let (sign, rest) = match self.rest.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        self.rest = rest;
        let hours = self.number(2).filter(|hours| *hours < 24)?;
        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
        let minutes =
            if self.rest.starts_with(|digit: char| digit.is_ascii_digit()) { self.number(2)? } else { 0 };
        (minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }

    /// `.5`, if there is one.
    fn fraction(&mut self) {
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            let _ = self.fraction_digits();
        }
    }

    fn fraction_digits(&mut self) -> Option<()> {
        let end = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
        self.parts.nanos = nine.parse().ok().filter(|_| end > 0)?;
        Some(())
    }
}
