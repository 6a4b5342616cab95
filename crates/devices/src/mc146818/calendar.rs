//! Days and dates of the proleptic Gregorian calendar.

/// A moment as the clock's registers show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    /// With the century.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
}

device::saved!(Date {
    year,
    month,
    day,
    hour,
    minute,
    second,
} check |date: &Date| {
    date.year < 10_000 && date.month < 100 && date.day < 100 && date.hour < 100
});

const SECONDS_PER_DAY: i64 = 86_400;
/// From 1 March of year 0, where the day's number is easy, to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;
const DAYS_PER_400_YEARS: i64 = 146_097;

impl Date {
    /// The date this many seconds after 1970 began.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY) + DAYS_TO_1970;
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        // Years are counted from March, so that the leap day is a year's last.
        let era = days.div_euclid(DAYS_PER_400_YEARS);
        let day = days.rem_euclid(DAYS_PER_400_YEARS);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (from_january, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Self {
            year: u32::try_from(year + era * 400 + january).unwrap_or(0),
            month: from_january as u32,
            day: (day - (153 * month + 2) / 5 + 1) as u32,
            hour: (second / 3600) as u32,
            minute: (second / 60 % 60) as u32,
            second: (second % 60) as u32,
        }
    }

    /// Seconds since 1970 began. Fields out of range carry over, as a guest may set them.
    #[must_use]
    pub fn to_unix(self) -> i64 {
        let months = i64::from(self.year) * 12 + i64::from(self.month) - 1 - 2;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        let days = era * DAYS_PER_400_YEARS + of_era * 365 + of_era / 4 - of_era / 100
            + day_of_year
            - DAYS_TO_1970;
        days * SECONDS_PER_DAY
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    /// 1 is Sunday, as the chip counts.
    #[must_use]
    pub fn weekday(self) -> u32 {
        (self.to_unix().div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7) as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (seconds, year, month, day, weekday) in [
            (0, 1970, 1, 1, 5),
            (951_782_400, 2000, 2, 29, 3),
            (1_709_164_800, 2024, 2, 29, 5),
            (4_107_542_400, 2100, 3, 1, 2),
        ] {
            let date = Date::from_unix(seconds);
            assert_eq!((date.year, date.month, date.day), (year, month, day), "{seconds}");
            assert_eq!((date.weekday(), date.to_unix()), (weekday, seconds));
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..DAYS_PER_400_YEARS {
            let seconds = day * SECONDS_PER_DAY + 86_399;
            assert_eq!(Date::from_unix(seconds).to_unix(), seconds);
        }
    }
}
