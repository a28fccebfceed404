# What every process of a cluster is started with: sourced by cluster.yaml, and by gcp.yaml and local.yaml beside this.
export PATH="$HOME/raylab/.venv/bin:$PATH"
export RAY_AUTH_MODE=token # the token lies in ~/.ray/auth_token; who does not have it is refused

# A node that died is noticed within seconds rather than a minute, and its work is done elsewhere. On machines so busy
# that they do not answer within a second, say so before: RAY_health_check_timeout_ms=5000.
export RAY_health_check_initial_delay_ms=${RAY_health_check_initial_delay_ms:-5000}
export RAY_health_check_period_ms=${RAY_health_check_period_ms:-1000}
export RAY_health_check_timeout_ms=${RAY_health_check_timeout_ms:-1000}
export RAY_health_check_failure_threshold=${RAY_health_check_failure_threshold:-3}
export RAY_grpc_client_keepalive_time_ms=${RAY_grpc_client_keepalive_time_ms:-10000}
export RAY_grpc_client_keepalive_timeout_ms=${RAY_grpc_client_keepalive_timeout_ms:-5000}

export RAY_task_oom_retries=3 # else a worker killed for memory is tried again for ever
export RAY_USAGE_STATS_ENABLED=0
