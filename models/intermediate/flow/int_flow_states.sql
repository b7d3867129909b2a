{{ flow_states() }}
