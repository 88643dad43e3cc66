//! A custom step: what each month is like in a place, from its daily weather.
//!
//! One function over serde types; everything else here is arithmetic that knows nothing of Reipaz and is tested natively.

use std::collections::BTreeMap;

use reipaz_sdk::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MONTHS: [&str; 12] = [
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

/// Daily weather, and what counts as a wet day.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Input {
    /// One row a day, in any order.
    pub rows: Vec<Day>,
    /// From how much precipitation on, in millimetres, a day is wet; 1 if not said, as climatologists have it.
    #[serde(default = "one_millimetre")]
    pub wet_day_mm: f64,
}

fn one_millimetre() -> f64 {
    1.0
}

/// One day.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Day {
    /// `2012-01-31`.
    pub date: String,
    /// In millimetres.
    pub precipitation: f64,
    /// In degrees Celsius.
    pub temp_max: f64,
    /// In degrees Celsius.
    pub temp_min: f64,
    /// `rain`, `sun`, `snow`, ...
    pub weather: String,
}

/// The climate.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Climate {
    /// How many days it was made of.
    pub days: usize,
    /// Each month that occurs, January first.
    pub months: Vec<Month>,
    /// Share of the days with each kind of weather, 0 to 1.
    pub kinds: BTreeMap<String, f64>,
}

/// What one month is like, over all years.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Month {
    /// Its name.
    pub month: &'static str,
    /// How many days it was made of.
    pub days: usize,
    /// Mean of the days' highest temperatures, in degrees Celsius.
    pub mean_max: f64,
    /// Mean of the days' lowest temperatures, in degrees Celsius.
    pub mean_min: f64,
    /// Mean precipitation of a day, in millimetres.
    pub rain_per_day: f64,
    /// Share of wet days, 0 to 1.
    pub wet_days: f64,
}

/// Turns daily weather into what each month is like.
#[reipaz_sdk::step]
pub fn monthly_climate(input: Input) -> Result<Climate, StepError> {
    if input.rows.is_empty() {
        return Err(StepError::permanent("no_rows", "there is no day to make a climate of"));
    }
    let mut months: [Vec<&Day>; 12] = Default::default();
    for day in &input.rows {
        months[month_of(&day.date)?].push(day);
    }
    let climate = Climate {
        days: input.rows.len(),
        months: MONTHS
            .iter()
            .copied()
            .zip(&months)
            .filter(|(_, days)| !days.is_empty())
            .map(|(name, days)| month(name, days, input.wet_day_mm))
            .collect(),
        kinds: kinds(&input.rows),
    };
    info!("made a climate", days = climate.days, months = climate.months.len());
    Ok(climate)
}

/// 0 for January.
fn month_of(date: &str) -> Result<usize, StepError> {
    let month = date.split('-').nth(1).and_then(|month| month.parse::<usize>().ok());
    match month {
        Some(month @ 1..=12) => Ok(month - 1),
        _ => Err(StepError::permanent("bad_date", format!("{date:?} is no date of the form 2012-01-31"))),
    }
}

fn month(name: &'static str, days: &[&Day], wet_day_mm: f64) -> Month {
    let mean =
        |of: fn(&Day) -> f64| round(days.iter().map(|day| of(day)).sum::<f64>() / days.len() as f64, 10.0);
    let wet = days.iter().filter(|day| day.precipitation >= wet_day_mm).count();
    Month {
        month: name,
        days: days.len(),
        mean_max: mean(|day| day.temp_max),
        mean_min: mean(|day| day.temp_min),
        rain_per_day: mean(|day| day.precipitation),
        wet_days: round(wet as f64 / days.len() as f64, 100.0),
    }
}

fn kinds(days: &[Day]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for day in days {
        *counts.entry(day.weather.clone()).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| (kind, round(count as f64 / days.len() as f64, 1000.0))).collect()
}

fn round(number: f64, steps_per_unit: f64) -> f64 {
    (number * steps_per_unit).round() / steps_per_unit
}

#[cfg(test)]
mod tests {
    use reipaz_sdk::testing;

    use super::*;

    fn day(date: &str, precipitation: f64, temp_max: f64, weather: &str) -> Day {
        Day { date: date.to_owned(), precipitation, temp_max, temp_min: 0.0, weather: weather.to_owned() }
    }

    #[test]
    fn months_are_made_of_all_years() {
        let rows = vec![
            day("2012-02-01", 0.0, 8.0, "sun"),
            day("2013-02-01", 3.0, 10.0, "rain"),
            day("2012-01-31", 0.4, 5.0, "drizzle"),
            day("2013-02-02", 0.0, 12.0, "sun"),
        ];
        let climate = monthly_climate(Input { rows, wet_day_mm: 1.0 }).expect("a climate");

        assert_eq!(climate.days, 4);
        let [january, february] = &climate.months[..] else { panic!("two months: {climate:?}") };
        assert_eq!((january.month, january.days, january.wet_days), ("January", 1, 0.0));
        assert_eq!((february.month, february.mean_max, february.rain_per_day), ("February", 10.0, 1.0));
        assert_eq!(february.wet_days, 0.33);
        assert_eq!(climate.kinds["sun"], 0.5);
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let error = monthly_climate(Input { rows: Vec::new(), wet_day_mm: 1.0 }).expect_err("no rows");
        assert_eq!(error.code, "no_rows");
        let rows = vec![day("31.01.2012", 0.0, 0.0, "sun")];
        assert_eq!(
            monthly_climate(Input { rows, wet_day_mm: 1.0 }).expect_err("a bad date").code,
            "bad_date"
        );
    }

    /// As the host would run it: JSON in, JSON out.
    #[test]
    fn it_reads_what_the_csv_plugin_writes() -> Result<(), StepError> {
        let input = r#"{"rows": [{"date": "2012-01-01", "precipitation": 0, "temp_max": 12.8, "temp_min": 5.0,
                                  "wind": 4.7, "weather": "drizzle"}]}"#;
        let output: serde_json::Value =
            serde_json::from_str(&testing::run::<ReipazStep>(reipaz_sdk::Context::default(), input)?)?;
        assert_eq!(output["months"][0]["month"], "January");
        Ok(())
    }
}
