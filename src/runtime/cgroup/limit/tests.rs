//! Resources of the specification, and the files and values they come to.

use super::*;
use std::path::PathBuf;

fn check(resources: &str, v2: bool, expected: &[&str]) {
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let layout = if v2 { Layout::Unified(PathBuf::new()) } else { Layout::Legacy { unified: None } };
    let found: Vec<String> = match settings(Some(&resources), &layout) {
        Ok(list) => list.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect(),
        Err(error) => vec![crate::failure::message_of(&error)],
    };
    assert_eq!(found, expected, "{resources:?}");
}

#[test]
fn memory() {
    let both = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500}}"#;
    check(both, true, &["memory.swap.max=2000", "memory.max=1000", "memory.low=500"]);
    check(
        both,
        false,
        &["memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes=3000", "memory.soft_limit_in_bytes=500"],
    );
    check(r#"{"memory":{"limit":-1}}"#, true, &["memory.swap.max=max", "memory.max=max"]);
    check(r#"{"memory":{"limit":0,"swap":0}}"#, true, &[]);
    check(r#"{"memory":{"limit":5,"swap":-1}}"#, true, &["memory.swap.max=max", "memory.max=5"]);
    let small = "memory.swap: 4 is memory plus swap and cannot be less than memory.limit, 5";
    check(r#"{"memory":{"limit":5,"swap":4}}"#, true, &[small]);
    check(r#"{"memory":{"limit":5,"swap":4}}"#, false, &[small]);
    check(r#"{"memory":{"swappiness":101}}"#, false, &["memory.swappiness: 101 is not between 0 and 100"]);
}

#[test]
fn cpu() {
    let all = r#"{"cpu":{"shares":1024,"quota":50000,"period":200000,"burst":10,"cpus":"0-1","mems":"0"}}"#;
    let v2 = ["cpu.weight=100", "cpu.max=50000 200000", "cpu.max.burst=10", "cpuset.cpus=0-1", "cpuset.mems=0"];
    check(all, true, &v2);
    let v1 = [
        "cpu.shares=1024",
        "cpu.cfs_period_us=200000",
        "cpu.cfs_quota_us=50000",
        "cpu.cfs_burst_us=10",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
    ];
    check(all, false, &v1);
    check(r#"{"cpu":{"quota":-1}}"#, true, &["cpu.max=max 100000"]);
    check(r#"{"cpu":{"idle":1,"shares":5}}"#, true, &["cpu.idle=1"]);
    check(r#"{"cpu":{"idle":2}}"#, true, &["cpu.idle: 2 is neither 0 nor 1"]);
    check(r#"{"cpu":{"realtimeRuntime":5}}"#, true, &["cpu.realtimeRuntime: cgroup v2 has no realtime limits"]);
}

#[test]
fn weights() {
    for (shares, weight) in [(2, 1), (100, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
    check(r#"{"blockIO":{"weight":10}}"#, true, &["io.bfq.weight=10"]);
    check(r#"{"blockIO":{"weight":9}}"#, true, &["blockIO.weight: 9 is not between 10 and 1000"]);
}

#[test]
fn the_rest() {
    let io = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}]}}"#;
    check(io, true, &["io.max=8:0 rbps=1024"]);
    check(io, false, &["blkio.throttle.read_bps_device=8:0 1024"]);
    check(r#"{"pids":{"limit":-1}}"#, true, &["pids.max=max"]);
    check(r#"{"pids":{"limit":0}}"#, true, &["pids.max=1"]);
    check(r#"{"pids":{"limit":7}}"#, false, &["pids.max=7"]);
    let huge = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#;
    check(huge, true, &["hugetlb.2MB.max=9", "hugetlb.2MB.rsvd.max=9"]);
    check(huge, false, &["hugetlb.2MB.limit_in_bytes=9", "hugetlb.2MB.rsvd.limit_in_bytes=9"]);
    let bad = r#"{"hugepageLimits":[{"pageSize":"../x","limit":9}]}"#;
    check(bad, true, &["hugepageLimits: page size `../x` is not like 2MB or 1GB"]);
    check(r#"{"unified":{"memory.high":"1"}}"#, true, &["memory.high=1"]);
    check(r#"{"unified":{"../x.y":"1"}}"#, true, &["unified: `../x.y` is not the name of a control file"]);
    check(r#"{"unified":{"no.such":"1"}}"#, true, &["unified: `no.such`: there is no cgroup controller `no`"]);
    check(
        r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}}"#,
        true,
        &["rdma.max=mlx5_1 hca_handle=3 hca_object=4"],
    );
}
