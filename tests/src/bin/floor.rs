//! The parts of the reference chain; started by `bench`, not by people.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    farmbell_tests::bench::chain::play(&arguments)
}
