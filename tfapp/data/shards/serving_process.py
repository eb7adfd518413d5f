"""A process of the tf.data service: a dispatcher and its one worker, until standard input ends."""

from __future__ import annotations

import signal
import sys

from tfapp.data.shards.workers import load_tensorflow_quietly


def main(port: int, worker_port: int, host: str) -> None:
    """Starts both, writes the address on standard output, and waits.

    Args:
        port: Of the dispatcher; 0 for any that is free.
        worker_port: Of the worker; 0 for any that is free.
        host: Name or address under which training reaches this machine.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process decides

    load_tensorflow_quietly()

    import tensorflow as tf
    import tensorflow_text

    del tensorflow_text  # its operators are what was needed
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=port, protocol="grpc"))
    place = dispatcher.target.partition("://")[2]
    worker = service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=place,
            port=worker_port,
            worker_address=f"{host}:%port%",
            heartbeat_interval_ms=1000,
        )
    )
    address = f"grpc://{host}:{place.rpartition(':')[2]}"
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    worker._stop()
    dispatcher._stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
