//! Dates in UTC, by the proleptic Gregorian calendar: arithmetic after Howard Hinnant's "chrono-compatible low-level date
//! algorithms". There is no clock and no other zone here.

mod format;
mod parse;

use jaq_core::Error;
use jaq_json::Val;
use jaq_std::ValT as _;

pub(crate) use parse::{from_rfc3339, parse};

pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(crate) const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const DAY_SECONDS: i64 = 86_400;
/// Years beyond this are refused, so that no sum overflows.
const MAX_YEAR: i64 = 999_999;
const NANOS: i64 = 1_000_000_000;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since 1970-01-01T00:00:00Z.
    seconds: i64,
    /// 0 to 999,999,999.
    nanos: i64,
}

/// A moment's parts. Months and days count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) nanos: i64,
}

impl Civil {
    pub(crate) fn moment(self) -> Result<Moment, Error<Val>> {
        let in_range = self.year.abs() <= MAX_YEAR
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second);
        if !in_range {
            return Err(Error::str(format_args!(
                "{}-{:02}-{:02}T{:02}:{:02}:{:02} is no date",
                self.year, self.month, self.day, self.hour, self.minute, self.second
            )));
        }
        let days = days_from_civil(self.year, self.month, self.day);
        let seconds = days * DAY_SECONDS + self.hour * 3600 + self.minute * 60 + self.second;
        Ok(Moment { seconds, nanos: self.nanos })
    }
}

impl Moment {
    /// A number of seconds, or a "broken down time".
    pub(crate) fn read(value: &Val) -> Result<Self, Error<Val>> {
        if matches!(value, Val::Arr(_)) {
            return Self::read_broken_down(value);
        }
        let number = value.as_f64().ok_or_else(|| Error::typ(value.clone(), "number or broken down time"))?;
        let bound = (MAX_YEAR * 366 * DAY_SECONDS) as f64;
        if !number.is_finite() || number.abs() > bound {
            return Err(Error::str(format_args!("{value} is no time")));
        }
        // A float near today has a quarter of a microsecond; more digits would be noise.
        let seconds = number.floor();
        let micros = ((number - seconds) * 1e6).round() as i64;
        Ok(Self { seconds: seconds as i64 + micros / 1_000_000, nanos: micros % 1_000_000 * 1000 })
    }

    /// `[year, month from 0, day, hours, minutes, seconds, ...]`
    pub(crate) fn read_broken_down(value: &Val) -> Result<Self, Error<Val>> {
        let no_time = || Error::typ(value.clone(), "broken down time");
        let Val::Arr(parts) = value else { return Err(no_time()) };
        let numbers: Vec<f64> = parts.iter().take(6).map_while(jaq_std::ValT::as_f64).collect();
        let [year, month, day, hour, minute, second] = numbers[..] else { return Err(no_time()) };
        Civil {
            year: year as i64,
            month: month as i64 + 1,
            day: day as i64,
            hour: hour as i64,
            minute: minute as i64,
            second: second.floor() as i64,
            nanos: (second.fract() * 1e6).round() as i64 * 1000,
        }
        .moment()
    }

    pub(crate) fn plus_seconds(self, seconds: i64) -> Self {
        Self { seconds: self.seconds + seconds, ..self }
    }

    pub(crate) fn civil(self) -> Civil {
        let days = self.seconds.div_euclid(DAY_SECONDS);
        let second_of_day = self.seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            nanos: self.nanos,
        }
    }

    /// 0 is Sunday.
    pub(crate) fn weekday(self) -> i64 {
        // 1970-01-01 was a Thursday.
        (self.seconds.div_euclid(DAY_SECONDS) + 4).rem_euclid(7)
    }

    /// 0 is January 1st.
    pub(crate) fn day_of_year(self) -> i64 {
        self.seconds.div_euclid(DAY_SECONDS) - days_from_civil(self.civil().year, 1, 1)
    }

    /// Seconds since 1970: whole if they are.
    pub(crate) fn seconds(self) -> Val {
        if self.nanos == 0 {
            return whole(self.seconds);
        }
        Val::from(self.seconds as f64 + self.nanos as f64 / NANOS as f64)
    }

    /// `[year, month from 0, day, hours, minutes, seconds, weekday from Sunday, day of the year from 0]`
    pub(crate) fn broken_down(self) -> Val {
        let civil = self.civil();
        let second = if civil.nanos == 0 {
            whole(civil.second)
        } else {
            Val::from(civil.second as f64 + civil.nanos as f64 / NANOS as f64)
        };
        let parts = [
            whole(civil.year),
            whole(civil.month - 1),
            whole(civil.day),
            whole(civil.hour),
            whole(civil.minute),
            second,
            whole(self.weekday()),
            whole(self.day_of_year()),
        ];
        parts.into_iter().collect()
    }

    /// `2015-03-05T23:51:47Z`, with a fraction if there is one.
    pub(crate) fn rfc3339(self) -> String {
        let Civil { year, month, day, hour, minute, second, nanos } = self.civil();
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if nanos != 0 {
            let fraction = format!("{nanos:09}");
            text.push('.');
            text.push_str(fraction.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// An integer of any size: jaq's own are 32 bits wide in a component.
fn whole(number: i64) -> Val {
    Val::Num(jaq_json::Num::from_integral(number))
}

/// Days since 1970-01-01. A day beyond its month's end counts on into the next.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
