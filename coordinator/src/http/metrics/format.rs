//! The two text formats of metrics. The library writes OpenMetrics; the older
//! Prometheus format names a counter's family as its samples are named.

pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics text as Prometheus text.
pub(super) fn as_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take() {
                // Sentences end with a full stop in OpenMetrics only.
                let text = text.trim_end_matches('.');
                out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_named_as_its_samples() {
        let open = "# HELP jobs Jobs.\n# TYPE jobs counter\njobs_total 5\n# HELP s T.\n\
                    # TYPE s gauge\n# UNIT s seconds\ns 1.0\n# EOF\n";
        assert_eq!(
            as_prometheus(open),
            "# HELP jobs_total Jobs\n# TYPE jobs_total counter\njobs_total 5\n\
             # HELP s T\n# TYPE s gauge\ns 1.0\n"
        );
    }
}
