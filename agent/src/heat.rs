//! Whether heat or a weak power supply slows this host down. Owns where the
//! kernel says so. Only the worst counts, a processor slowed as far as it goes
//! or too low a voltage: a board that is a step below its best clock all day
//! long builds still, and keeping work from it would help nobody.

use std::fs;
use std::path::Path;

/// Where the kernel tells of its devices.
pub(crate) const SYS: &str = "/sys";

/// The firmware of a Raspberry Pi: a hexadecimal set of what is wrong now (the
/// low bits) and what has been.
const FIRMWARE: &str = "devices/platform/soc/soc:firmware/get_throttled";
const UNDER_VOLTAGE_NOW: u32 = 1;
const THROTTLED_NOW: u32 = 1 << 2;
/// Its cooling devices, of which those of the processors slow it down.
const COOLING: &str = "class/thermal";
const OF_PROCESSORS: [&str; 3] = ["Processor", "cpufreq-", "thermal-cpufreq-"];

/// What slows the host down now, if anything does.
pub(crate) fn slowed_by(sys: &Path) -> Option<String> {
    by_firmware(sys).or_else(|| by_the_kernel(sys))
}

fn by_firmware(sys: &Path) -> Option<String> {
    let text = fs::read_to_string(sys.join(FIRMWARE)).ok()?;
    let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    if flags & UNDER_VOLTAGE_NOW != 0 {
        return Some("its voltage is too low (a better power supply helps)".to_owned());
    }
    (flags & THROTTLED_NOW != 0).then(|| "its firmware slows it down, it is too hot".to_owned())
}

fn by_the_kernel(sys: &Path) -> Option<String> {
    let devices = fs::read_dir(sys.join(COOLING)).ok()?;
    devices.filter_map(Result::ok).find_map(|device| {
        let says = |file: &str| fs::read_to_string(device.path().join(file)).ok();
        let kind = says("type")?;
        let kind = kind.trim();
        if !OF_PROCESSORS.iter().any(|of| kind.starts_with(of)) {
            return None;
        }
        let step = |file| says(file)?.trim().parse::<u32>().ok();
        let (now, most) = (step("cur_state")?, step("max_state")?);
        (most > 0 && now >= most)
            .then(|| format!("it is too hot: {kind} is slowed down as far as it goes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that has these files.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn cooling(kind: &str, now: &str) -> Option<String> {
        let dir = sys(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/cooling_device0/type", kind),
            ("class/thermal/cooling_device0/cur_state", now),
            ("class/thermal/cooling_device0/max_state", "4\n"),
        ]);
        slowed_by(dir.path())
    }

    #[test]
    fn a_processor_that_is_slowed_as_far_as_it_goes_is_told() {
        assert!(
            cooling("cpufreq-cpu0\n", "4\n")
                .unwrap()
                .contains("cpufreq-cpu0")
        );
        assert!(cooling("Processor\n", "4\n").is_some());
        assert_eq!(cooling("cpufreq-cpu0\n", "3\n"), None, "it builds still");
        assert_eq!(cooling("pwm-fan\n", "4\n"), None, "a fan may turn");
        assert_eq!(slowed_by(sys(&[]).path()), None, "it has no such thing");
    }

    #[test]
    fn of_what_a_firmware_tells_only_what_is_wrong_now_counts() {
        let told = |flags| slowed_by(sys(&[(FIRMWARE, flags)]).path());
        assert!(told("50005\n").unwrap().contains("voltage"));
        assert!(told("0x4\n").unwrap().contains("hot"));
        assert_eq!(told("50000\n"), None, "it was so once");
        assert_eq!(told("nonsense\n"), None);
    }
}
