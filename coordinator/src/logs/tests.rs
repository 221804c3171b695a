use farmbell_protocol::id::JobId;

use super::*;

const ATTEMPT: AttemptId = AttemptId {
    job: JobId(7),
    generation: 1,
    number: 1,
    nonce: 99,
};

fn logs() -> (tempfile::TempDir, Logs) {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path()).unwrap();
    (dir, logs)
}

fn whole(logs: &Logs) -> Bytes {
    logs.read_range(ATTEMPT, 0, 1 << 20).unwrap()
}

#[test]
fn a_repeat_changes_nothing_and_a_hole_is_refused() {
    let (_dir, logs) = logs();
    assert_eq!(logs.append(ATTEMPT, 0, b"hello ").unwrap(), 6);
    assert_eq!(logs.append(ATTEMPT, 0, b"hello ").unwrap(), 6);
    assert_eq!(logs.append(ATTEMPT, 3, b"lo world").unwrap(), 11);
    assert!(matches!(
        logs.append(ATTEMPT, 12, b"x"),
        Err(LogError::Hole {
            have: 11,
            offset: 12
        })
    ));
    assert_eq!(whole(&logs), "hello world");
    assert_eq!(logs.tail(ATTEMPT, 5).unwrap(), "world");
    assert_eq!(logs.read_range(ATTEMPT, 6, 3).unwrap(), "wor");
    assert_eq!(logs.read_range(ATTEMPT, 60, 3).unwrap(), "");
}

#[test]
fn a_new_process_goes_on_where_the_file_ends() {
    let (dir, logs) = logs();
    logs.append(ATTEMPT, 0, b"before").unwrap();
    let cut = Cut {
        offset: 6,
        dropped: 1000,
    };
    logs.cut(ATTEMPT, cut).unwrap();
    let logs = Logs::open(dir.path()).unwrap();
    assert_eq!(logs.extent(ATTEMPT).unwrap().length, 6);
    logs.cut(ATTEMPT, cut).unwrap();
    logs.append(ATTEMPT, 0, b"before and after").unwrap();
    assert_eq!(whole(&logs), "before and after");
    assert_eq!(logs.cuts(ATTEMPT).unwrap(), [cut]);
    fs::write(logs.path(ATTEMPT).with_extension("cuts"), "6 1000\n9 2").unwrap();
    assert_eq!(logs.cuts(ATTEMPT).unwrap(), [cut], "a torn line is no cut");
}

#[tokio::test]
async fn a_log_is_closed_at_its_length_only() {
    let (_dir, logs) = logs();
    logs.append(ATTEMPT, 0, b"abc").unwrap();
    assert!(matches!(
        logs.close(ATTEMPT, 4).await,
        Err(LogError::NotWhole { have: 3, length: 4 })
    ));
    logs.close(ATTEMPT, 3).await.unwrap();
    logs.close(ATTEMPT, 3).await.unwrap();
    assert!(matches!(
        logs.append(ATTEMPT, 3, b"d"),
        Err(LogError::Closed { length: 3 })
    ));
    assert_eq!(
        logs.append(ATTEMPT, 0, b"abc").unwrap(),
        3,
        "a repeat is fine"
    );
}

#[tokio::test]
async fn an_empty_log_can_be_closed() {
    let (_dir, logs) = logs();
    logs.close(ATTEMPT, 0).await.unwrap();
    assert!(logs.path(ATTEMPT).exists());
}

#[tokio::test]
async fn a_follower_sees_every_byte_as_it_comes_and_then_the_end() {
    let (_dir, logs) = logs();
    let mut follow = logs.follow(ATTEMPT, 0).unwrap();
    let writer = logs.clone();
    let writing = tokio::spawn(async move {
        let mut offset = 0;
        for number in 0..2000 {
            offset = writer
                .append(ATTEMPT, offset, format!("line {number}\n").as_bytes())
                .unwrap();
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        writer.close(ATTEMPT, offset).await.unwrap();
    });
    let mut seen = Vec::new();
    while let Some(bytes) = follow.next().await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    writing.await.unwrap();
    assert_eq!(seen, whole(&logs));
    assert!(seen.ends_with(b"line 1999\n"));
    logs.release(ATTEMPT);
    assert_eq!(follow.next().await.unwrap(), None);
}

#[tokio::test]
async fn followers_of_a_released_log_end() {
    let (_dir, logs) = logs();
    logs.append(ATTEMPT, 0, b"half").unwrap();
    let mut follow = logs.follow(ATTEMPT, 4).unwrap();
    let waiting = tokio::spawn(async move { follow.next().await.unwrap() });
    tokio::task::yield_now().await;
    logs.release(ATTEMPT);
    assert_eq!(waiting.await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_log_is_flushed_at_most_once_a_second() {
    let (_dir, logs) = logs();
    let began = tokio::time::Instant::now();
    logs.append(ATTEMPT, 0, b"a").unwrap();
    assert_eq!(logs.durable(ATTEMPT).await.unwrap(), 1);
    assert!(began.elapsed().as_millis() < 1000, "the first at once");
    logs.append(ATTEMPT, 1, b"b").unwrap();
    assert_eq!(logs.durable(ATTEMPT).await.unwrap(), 2);
    assert!(began.elapsed().as_millis() >= 1000);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_flush_left_is_sent_again() {
    let (dir, logs) = logs();
    let cut = |offset| Cut {
        offset,
        dropped: 10,
    };
    logs.append(ATTEMPT, 0, b"durable").unwrap();
    logs.cut(ATTEMPT, cut(7)).unwrap();
    assert_eq!(logs.durable(ATTEMPT).await.unwrap(), 7);
    logs.append(ATTEMPT, 7, b" and lost").unwrap();
    logs.cut(ATTEMPT, cut(16)).unwrap();
    // The shard cannot be flushed where it is not to be found.
    let shard = logs.path(ATTEMPT).parent().unwrap().to_owned();
    let away = dir.path().join("away");
    fs::rename(&shard, &away).unwrap();
    assert!(logs.durable(ATTEMPT).await.is_err());
    fs::rename(&away, &shard).unwrap();
    assert_eq!(logs.extent(ATTEMPT).unwrap().length, 7);
    assert_eq!(whole(&logs), "durable");
    assert!(matches!(
        logs.append(ATTEMPT, 16, b"more"),
        Err(LogError::Hole {
            have: 7,
            offset: 16
        })
    ));
    logs.append(ATTEMPT, 7, b" and sent again").unwrap();
    logs.close(ATTEMPT, 22).await.unwrap();
    assert_eq!(whole(&logs), "durable and sent again");
    assert_eq!(logs.cuts(ATTEMPT).unwrap(), [cut(7)]);
}
