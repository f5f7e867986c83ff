#!/bin/sh
# A Slurm of one node on this very machine, to try workflow/profiles/slurm on: `slurm.sh up`, as
# root, after `apt-get install slurmctld slurmd slurm-client munge`; `slurm.sh down` removes it.
# Configuration has to lie in /etc/slurm, since steps of jobs look nowhere else.
set -eu
folder=${JELLYFISH_SLURM:-/tmp/jellyfish-slurm}
conf=/etc/slurm

up() {
    [ ! -e $conf/slurm.conf ] || { echo "$conf/slurm.conf is there already" >&2; exit 1; }
    mkdir -p "$folder/state" "$folder/spool" "$folder/munge" $conf
    chmod 700 "$folder/munge"
    host=$(hostname -s)
    head -c 1024 /dev/urandom > "$folder/munge/key"
    chmod 400 "$folder/munge/key"
    cat > $conf/slurm.conf <<EOF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=6000
PartitionName=main Nodes=$host Default=YES
EOF
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > $conf/cgroup.conf
    munged --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld
    slurmd
}

end() { # end NAME: and wait, since it still writes while it ends
    [ -s "$folder/$1.pid" ] || return 0
    pid=$(cat "$folder/$1.pid")
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

down() {
    for name in slurmd slurmctld munged; do
        end $name
    done
    if grep -qs "$folder" $conf/slurm.conf; then rm $conf/slurm.conf $conf/cgroup.conf; fi
    rm -rf "$folder"
}

case "${1:-}" in
up) up ;;
down) down ;;
*) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
