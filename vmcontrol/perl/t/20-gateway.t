# Gateways that misbehave: each situation has its number, none outlasts the time-out.
use strict;
use warnings;
use Test::More;

use File::Temp ();
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Time::HiRes ();

use VMware::VmPerl;

my $directory = File::Temp->newdir;
mkdir "$directory/$_" for qw(i i/run i/run/vmware i/etc i/etc/vmware);
my $path = "$directory/i/run/vmware/authd.sock";
$ENV{VMSERVERD_ROOT} = "$directory/i";

my $BANNER = "220 VMware Authentication Daemon Version 1.00\r\n";
my @LOGIN = ($BANNER, \'LOCAL', "230 User me logged in.\r\n", \'GLOBAL server', "200 Connected to vmware-serverd.\r\n");
my $OK = '<exec><returncode>1</returncode><out><number>1</number></out></exec>';

# A gateway in a process of its own for one connection. A text is sent, a reference to a text is a line
# that must come, [seconds] waits for the other side to close; then it closes.
sub gateway {
    my (@steps) = @_;
    unlink $path;
    my $listener = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 1) or die "listen: $!";
    my $pid = fork;
    die "fork: $!" if !defined $pid;
    return $pid if $pid;
    alarm 60;
    local $SIG{PIPE} = 'IGNORE';
    my $client = $listener->accept;
    for my $step (@steps) {
        if (ref $step eq 'SCALAR') {
            my $line = <$client>;
            defined $line && $line =~ /^\Q$$step\E\r?\n\z/ or require POSIX && POSIX::_exit(1);
        }
        elsif (ref $step) {
            1 while sysread $client, my $rest, 4096;
        }
        else {
            syswrite $client, $step;
        }
    }
    require POSIX;
    close $client;
    POSIX::_exit(0);
}

# Time-out of calls that are to run into it; the others have more than a busy machine needs.
my $SHORT = 300;

# Runs a call against such a gateway; returns what it returns, the error, and whether it is connected.
sub against {
    my ($steps, $call, $what, $timeout) = @_;
    my $pid = gateway(@$steps);
    my $server = VMware::VmPerl::Server::new();
    $server->set_timeout($timeout || 30_000);
    my $start = Time::HiRes::time();
    my $result = $call->($server);
    cmp_ok(Time::HiRes::time() - $start, '<', 25, "$what: in time");
    my @error = $server->get_last_error;
    my $connected = $server->is_connected;
    undef $server;
    waitpid $pid, 0;
    is($?, 0, "$what: the gateway was asked what it expected");
    return ($result, \@error, $connected);
}

sub connects { my ($server) = @_; return $server->connect(VMware::VmPerl::ConnectParams::new()) }

for my $case (
    [ 'a banner of another version', ["220 VMware Authentication Daemon Version 2.00\r\n"], -6, qr/^Incompatible version: .*: 220 VMware/ ],
    [ 'a mail server', ["220 mail.example.com ESMTP\r\n"], -14, qr/ESMTP/ ],
    [ 'another service', ["SSH-2.0-OpenSSH_9.2\r\n"], -14, qr/^Unexpected response from vmware-authd: SSH-2\.0/ ],
    [ 'too many connections', ["421 Too many connections.\r\n"], -7, qr/^Operation timed out: Too many connections\.$/ ],
    [ 'silence', [ [] ], -7, qr/^Operation timed out: no answer within 300 ms$/ ],
    [ 'half a banner', [ '220 VMware', [] ], -7, qr/300 ms/ ],
    [ 'a banner without end', [ 'x' x 5000, [] ], -14, qr/4096 bytes/ ],
    [ 'a close before the banner', [], -13, qr/^Connection lost: / ],
    [ 'a close after the banner', [$BANNER], -13, qr/^Connection lost: / ],
    [ 'a reason and a close', [ $BANNER, "421 Shutting down.\r\n" ], -7, qr/^Operation timed out: Shutting down\.$/ ],
    [ 'LOCAL refused', [ $BANNER, \'LOCAL', "530 Local login refused.\r\n" ], -4, qr/^Permission denied: Local login refused\.$/ ],
    [ 'login timed out', [ $BANNER, \'LOCAL', "421 Login timed out.\r\n" ], -7, qr/: Login timed out\.$/ ],
    [ 'no server', [ @LOGIN[ 0 .. 3 ], "511 Error connecting to /usr/sbin/vmware-serverd process.\r\n" ],
        -14, qr{^Unexpected response from vmware-authd: 511 Error connecting to /usr/sbin/vmware-serverd process\.$} ],
    [ 'session refused', [ @LOGIN[ 0 .. 3 ], "512 The server daemon refused the session.\r\n" ], -14, qr/512 The server/ ],
    [ '550', [ @LOGIN[ 0 .. 3 ], "550 You need execute access.\r\n" ], -4, qr/: You need execute access\.$/ ],
    [ '551', [ @LOGIN[ 0 .. 3 ], "551 The config file /a is not registered.\r\n" ], -11,
        qr{^No such virtual machine: The config file /a is not registered\.\nPlease register .*\nvmware-cmd -s register "/a"$} ],
    [ '514', [ @LOGIN[ 0 .. 3 ], "514 Virtual machine /a is not running.\r\n" ], -8, qr/ is not running\.$/ ],
    [ '552', [ @LOGIN[ 0 .. 3 ], "552 Virtual machine /a is busy.\r\n" ], -21, qr/ is busy\.$/ ],
    [ 'control characters in a line', [ $BANNER, \'LOCAL', "500 a\e[2Jb\r\n" ], -14, qr/500 a\xef\xbf\xbd\[2Jb$/ ],
) {
    my ($what, $steps, $number, $like) = @$case;
    # Where the gateway waits for the other side to close, the time-out is what is tested.
    my ($result, $error, $connected) = against($steps, \&connects, $what, $number == -7 && ref $steps->[-1] ? $SHORT : undef);
    is($result, undef, "$what: fails");
    is($error->[0], $number, "$what: $number");
    like($error->[1], $like, "$what: text");
    is($connected, undef, "$what: not connected");
}

# Names and passwords on the wire.
{
    my $steps = [ $BANNER, \'USER a%25b', "331 Password required for a%25b.\r\n", \'PASS 100%25%09%7F', "530 Login incorrect.\r\n" ];
    my ($result, $error) = against($steps, sub { $_[0]->connect(VMware::VmPerl::ConnectParams::new(undef, 0, 'a%b', "100%\t\x7f")) }, 'escapes');
    is_deeply($error, [ -4, 'Permission denied: Login incorrect.' ], 'a wrong password');
}

# After the login: (steps, number, text, still connected).
for my $case (
    [ 'a close instead of a reply', [ \'<exec/>' ], -13, qr/^Connection lost/, undef ],
    [ 'a close in a reply', [ \'<exec/>', '<exec><returncode>' ], -13, qr/^Connection lost/, undef ],
    [ 'no reply', [ \'<exec/>', [] ], -7, qr/^Operation timed out/, undef ],
    [ 'half a reply', [ \'<exec/>', '<exec><retu', [] ], -7, qr/^Operation timed out/, undef ],
    [ 'no XML', [ \'<exec/>', "500 What?\r\n", [] ], -15, qr/^Reply not understood/, undef ],
    [ 'other XML', [ \'<exec/>', '<html><body>', [] ], -15, qr/^Reply not understood/, undef ],
) {
    my ($what, $steps, $number, $like, $still) = @$case;
    my ($result, $error, $connected) = against([ @LOGIN, @$steps ], sub {
        my ($server) = @_;
        connects($server);
        $server->set_timeout($SHORT) if $number == -7;
        return $server->exec('<exec/>');
    }, $what);
    is($result, undef, "$what: fails");
    is($error->[0], $number, "$what: $number");
    like($error->[1], $like, "$what: text");
    is($connected, $still, "$what: connected or not");
}

# Replies that are no replies, through a method that reads them.
my $asked = \'<exec><op>VMServerd_GetResource</op><in><name>a</name></in></exec>';
for my $case (
    [ 'an envelope without return code', '<exec><out/></exec>', -15, undef ],
    [ 'a DOCTYPE inside', '<exec><!DOCTYPE a><returncode>1</returncode><out/></exec>', -15, undef ],
    [ 'a value that is missing', '<exec><returncode>1</returncode><out/></exec>', -15, 1 ],
    [ 'a failure without error', '<exec><returncode>0</returncode><out/></exec>', -999, 1 ],
    [ 'a time-out of the server\'s', '<exec><returncode>0</returncode><errors><error code="-7">slow</error></errors><out/></exec>', -7, 1 ],
) {
    my ($what, $reply, $number, $still) = @$case;
    my ($result, $error, $connected) = against([ @LOGIN, $asked, "$reply\n", [] ], sub { connects($_[0]) && $_[0]->get_resource('a') }, $what);
    is($result, undef, "$what: fails");
    is($error->[0], $number, "$what: $number");
    is($connected, $still, "$what: connected or not");
}

# One byte at a time, and a success after a failure.
{
    my ($result, $error, $connected) = against(
        [ @LOGIN, \'<exec/>', split(//, "$OK\n"), \'<exec/>', "$OK\n", [] ],
        sub {
            my ($server) = @_;
            connects($server);
            is($server->connect(VMware::VmPerl::ConnectParams::new()), undef, 'a second connect fails');
            is($server->get_last_error, VM_E_ALREADYCONNECTED, 'with -12');
            is($server->exec('<exec/>'), $OK, 'and the connection is as it was');
            return $server->exec('<exec/>');
        },
        'in pieces'
    );
    is($result, $OK, 'a reply in pieces');
    is_deeply($error, [ 0, '' ], 'a success resets the error');
    is($connected, 1, 'still connected');
}

# A signal handler of the script that gives up waiting gets out, and the late reply does no harm.
{
    my ($result, $error, $connected) = against(
        [ @LOGIN, \'<exec/>', [] ],
        sub {
            my ($server) = @_;
            connects($server);
            $server->set_timeout(20_000);
            my $left = eval {
                local $SIG{ALRM} = sub { die "enough\n" };
                Time::HiRes::alarm(0.2);
                $server->exec('<exec/>');
                1;
            };
            is($@, "enough\n", 'die in a handler passes through');
            return $left;
        },
        'a handler'
    );
    is($connected, undef, 'and the connection is gone');
}

# Signals that do not mean to end anything.
{
    my ($result) = against(
        [ @LOGIN, \'<exec/>', [] ],
        sub {
            my ($server) = @_;
            connects($server);
            $server->set_timeout(500);
            my $calls = 0;
            local $SIG{ALRM} = sub { ++$calls };
            Time::HiRes::ualarm(50_000, 50_000);
            my $reply = $server->exec('<exec/>');
            Time::HiRes::ualarm(0);
            cmp_ok($calls, '>', 0, 'signals came in between');
            is($server->get_last_error, VM_E_TIMEOUT, 'and the time-out is kept');
            return $reply;
        },
        'signals'
    );
    is($result, undef, 'no reply');
}

# A child has a copy of the object, which it can let go without harm.
{
    my ($result) = against(
        [ @LOGIN, \'<exec/>', "$OK\n", [] ],
        sub {
            my ($server) = @_;
            connects($server);
            my $pid = fork;
            if (!$pid) {
                require POSIX;
                my $fine = !defined $server->is_connected && !defined $server->exec('<exec/>') && $server->get_last_error == -5;
                undef $server;
                POSIX::_exit($fine ? 0 : 1);
            }
            waitpid $pid, 0;
            is($?, 0, 'in the child it counts as not connected');
            return $server->exec('<exec/>');
        },
        'fork'
    );
    is($result, $OK, 'the parent goes on');
}

# Nobody there.
unlink $path;
my $free = do {
    require IO::Socket::INET;
    my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die;
    $socket->sockport;
};
sub config {
    my ($text) = @_;
    open my $file, '>', "$directory/i/etc/vmware/config" or die;
    print $file $text;
    close $file;
    return;
}
config(qq(authd.client.port = "$free"\n));
my $server = VMware::VmPerl::Server::new();
is(connects($server), undef, 'nobody there');
is($server->get_last_error, VM_E_NETFAIL, 'nobody there: -2');
like(($server->get_last_error)[1],
    qr/^Network failure: cannot reach vmware-authd on this machine \(\Q$path\E: .*127\.0\.0\.1 port $free: .*::1 port $free: /,
    'all ways are named');
config('');
is($server->connect(VMware::VmPerl::ConnectParams::new('', $free)), undef, 'nobody at another port');
unlike(($server->get_last_error)[1], qr/authd\.sock/, 'then the socket is that of another instance');
is($server->connect(VMware::VmPerl::ConnectParams::new('no-such-host.invalid')), undef, 'a host without address');
is($server->get_last_error, VM_E_NETFAIL, 'a host without address: -2');

# The file that says where.
config(qq(# comment\nAuthd.Client.Port = "1234"\nauthd.local.socket = "/a|22b"\nnonsense\nauthd.client.port=5678 \r\n));
is_deeply([ VMware::VmPerl::Wire::here() ], [ '/a"b', 5678 ], 'the configuration file');
config(qq(authd.local.socket = ""\nauthd.client.port = "0"\n));
is_deeply([ VMware::VmPerl::Wire::here() ], [ '', 902 ], 'no socket, no port');
$ENV{VMSERVERD_ROOT} = "$directory/none";
is_deeply([ VMware::VmPerl::Wire::here() ], [ "$directory/none/run/vmware/authd.sock", 902 ], 'without a file');

# Certificates seen.
{
    my $file = VMware::VmPerl::KnownHosts::file({ HOME => "$directory/home" });
    is($file, "$directory/home/.vmware/known_hosts", 'the file');
    my $check = sub { VMware::VmPerl::KnownHosts::check($file, @_, sub { die 'time is over' }) };
    is($check->('h:902', 'sha256:aa'), undef, 'the first one is kept');
    is($check->('H:902', 'sha256:aa'), undef, 'and is known again');
    is($check->('h:903', 'sha256:bb'), undef, 'another port is another one');
    like($check->('h:903', 'sha256:cc'), qr/it was sha256:bb and is sha256:cc\..* remove line 2 of \Q$file\E /, 'a change is told');
    open my $handle, '<', $file or die;
    is(join('', <$handle>), "h:902 sha256:aa\nh:903 sha256:bb\n", 'what is in the file');
    is((stat $file)[2] & 0777, 0600, 'the file is the user\'s own');
    open my $lock, '>>', "$file.lock" or die;
    flock $lock, 2;
    is($check->('h:902', 'sha256:aa'), undef, 'who only reads needs no lock');
    is(eval { $check->('h:904', 'sha256:dd'); 1 }, undef, 'who waits for it in vain ends');
    like($@, qr/time is over/, 'at the end of the time');
    like(VMware::VmPerl::KnownHosts::check("$file/no", 'h:1', 'sha256:aa', sub { die }),
        qr/cannot be remembered in .*VMSERVERD_KNOWN_HOSTS/, 'a file that cannot be made');
    like(VMware::VmPerl::KnownHosts::check(undef, 'h:1', 'sha256:aa', sub { die }), qr/no home directory/, 'no home directory');
}

done_testing;
