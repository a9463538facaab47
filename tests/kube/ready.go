package main

import (
	"context"
	"fmt"
	"net"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	pollEvery = 20 * time.Millisecond
	// tryLimit is for one question to the API server, which may not answer at all while it starts.
	tryLimit = 2 * time.Second
)

// poll asks until the answer is no error, and returns the last one when the time is up.
func poll(ctx context.Context, ask func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, tryLimit)
		err := ask(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w (%w)", ctx.Err(), err)
		}
	}
}

// etcdReady waits until etcd takes connections.
func etcdReady(ctx context.Context, c *cluster) error {
	return poll(ctx, func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "unix", c.etcdSocket())
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// apiserverReady waits until the API server says that it is, which includes its own roles and bindings.
func apiserverReady(ctx context.Context, c *cluster) error {
	client, err := newClient(c)
	if err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// controllersReady waits for what a pod in the namespace default needs, which two of the controllers make.
func controllersReady(ctx context.Context, c *cluster) error {
	client, err := newClient(c)
	if err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) error {
		core := client.CoreV1()
		if _, err := core.ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := core.ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

func newClient(c *cluster) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit: the polls have their own pace
	return kubernetes.NewForConfig(config)
}
