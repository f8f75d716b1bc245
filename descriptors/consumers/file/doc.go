// Package file reads consumers and plans from a YAML file.
//
//	plans:
//	  free: {limits: [{rate: 5/s, burst: 10}, {quota: 10000/day}]}
//	consumers:
//	  - id: billing
//	    plan: free
//	    limit: 100/s        # short for limits: [{rate: 100/s}]; in place of the plan's
//	    labels: {team: payments}
//	    disabled: false
//	    tokens:
//	      - {id: prod, sha256: 9f86d081…, expires: 2027-01-01T00:00:00Z}
//	      - {id: laptop, value: dev-secret}   # accepted with a warning
//
// The package reads bytes and knows nothing of watching: its caller reads the
// file again when it changes and gives the set to [consumers.Registry.Replace].
package file
