#!/usr/bin/env bash
# A Slurm of two nodes with two GPUs each, all of it pretence on this machine: loopback only, no systemd, no accounting.
#   slurm_testbed.sh start STATE_DIRECTORY | stop STATE_DIRECTORY
# Needs root, and on Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
set -euo pipefail
command=$1 state=$(realpath -m "$2")

case $command in
start)
  # a requeued job waits for its credential's end, cred_expire, two minutes by default
  # jobs look for the configuration here, since Snakemake's step forgets SLURM_CONF
  if [ -e /etc/slurm/slurm.conf ] && { ! grep -q ClusterName=testbed /etc/slurm/slurm.conf || scontrol ping | grep -q UP; }; then
    echo "/etc/slurm/slurm.conf is in use: not touched" >&2
    exit 1
  fi
  install -d -m 700 "$state" "$state/controller" "$state/munge"
  mkdir -p /etc/slurm
  cat > /etc/slurm/slurm.conf <<CONF
ClusterName=testbed
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/munge.sock,cred_expire=10
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool-%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
CONF
  : > /etc/slurm/gres.conf
  for i in 1 2; do
    echo "NodeName=n$i NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((17000 + i)) CPUs=8 RealMemory=32000 Gres=gpu:fake:2 State=UNKNOWN" >> /etc/slurm/slurm.conf
    echo "NodeName=n$i Name=gpu Type=fake File=/dev/tty[1-2]" >> /etc/slurm/gres.conf
  done
  echo "PartitionName=gpu Nodes=n[1-2] Default=YES MaxTime=1-0 State=UP" >> /etc/slurm/slurm.conf
  [ -f "$state/munge/munge.key" ] || mungekey --create --keyfile="$state/munge/munge.key"
  munged --key-file="$state/munge/munge.key" --socket="$state/munge/munge.sock" --pid-file="$state/munge/munged.pid" \
    --log-file="$state/munge/munged.log" --seed-file="$state/munge/munged.seed" --force
  slurmctld
  for i in 1 2; do nice -n 19 slurmd -N "n$i"; done
  for _ in $(seq 60); do
    [ "$(sinfo -h -N -t idle -o %N 2> /dev/null | wc -l)" = 2 ] && exit 0
    sleep 0.5
  done
  echo "the nodes did not come up" >&2
  exit 1
  ;;
stop)
  scancel --user=root 2> /dev/null || true
  for pidfile in "$state"/slurmd-*.pid "$state/slurmctld.pid" "$state/munge/munged.pid"; do
    if [ -f "$pidfile" ]; then kill "$(cat "$pidfile")" || true; fi
  done
  rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
  ;;
esac
