// Command election measures client-go's leader election: so many Leases, two candidates for each, with the times that
// kube-controller-manager has (15 s, 10 s, 2 s). It prints, in milliseconds, how long nobody led after the leaders have
// ended well (ReleaseOnCancel), and after they have ended without a word.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// candidate runs until end is called; it then releases its Lease, or does not.
func candidate(client kubernetes.Interface, lease, name string, releases bool, leads chan<- time.Time) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: lease},
				Client:     client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			ReleaseOnCancel: releases,
			LeaseDuration:   15 * time.Second,
			RenewDeadline:   10 * time.Second,
			RetryPeriod:     2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leads <- time.Now() },
				OnStoppedLeading: func() {},
			},
		})
	}()
	return func() { cancel(); <-done }
}

// gap has a leader and a standby, ends the leader, and tells how long nobody led.
func gap(client kubernetes.Interface, lease string, releases bool) float64 {
	first, second := make(chan time.Time, 1), make(chan time.Time, 1)
	end := candidate(client, lease, "first", releases, first)
	<-first
	endSecond := candidate(client, lease, "second", false, second)
	defer endSecond()
	time.Sleep(5 * time.Second) // it has seen the leader renew
	stopped := time.Now()
	end()
	return float64((<-second).Sub(stopped).Microseconds()) / 1000
}

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "the cluster")
	leases := flag.Int("leases", 12, "how many at once")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	client := kubernetes.NewForConfigOrDie(config)
	result := map[string][]float64{}
	for name, releases := range map[string]bool{"released": true, "crashed": false} {
		gaps := make([]float64, *leases)
		var all sync.WaitGroup
		for number := range gaps {
			all.Go(func() { gaps[number] = gap(client, fmt.Sprintf("%s-%d", name, number), releases) })
		}
		all.Wait()
		result[name] = gaps
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
